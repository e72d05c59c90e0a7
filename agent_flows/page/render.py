"""HTML from templates: everything that is filled in is escaped."""

import datetime
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from agent_flows import errors
from agent_flows.page.timeline import WIDTH

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every page and file: it loads nothing from elsewhere, runs no script but its own file, and is
shown in no other page."""

_STATIC = Path(__file__).parent / "static"
FILES: Mapping[str, str] = {
    "style.css": "text/css; charset=utf-8",
    "live.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
"""The files beside the pages, each with its content type."""


def file(name: str) -> bytes:
    """The content of one of :data:`FILES`."""
    return (_STATIC / name).read_bytes()


def page(template: str, now: datetime.datetime, **values: Any) -> str:
    """The template with these values."""
    return str(_environment().get_template(template).render(now=now, **values))


@functools.cache
def _environment() -> Any:
    # Most servers are never asked for a page: it is loaded with the first one.
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.PackageLoader("agent_flows.page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {
        "age": _age,
        "moment": _moment,
        "moment_or_text": _moment_or_text,
        "seconds": _seconds,
        "segment": lambda text: quote(str(text), safe=""),
        "query": lambda params: urlencode({name: text for name, text in params.items() if text}),
        "code": lambda text: [(place % 2 == 1, part) for place, part in enumerate(text.split("`"))],
    }
    made.globals |= {
        "declared": errors.declared,
        "remedy": errors.remedy,
        "timeline_width": WIDTH,
    }
    return made


def _moment(text: str) -> str:
    moment = datetime.datetime.fromisoformat(text).astimezone(datetime.UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S\N{NO-BREAK SPACE}UTC")


def _moment_or_text(text: object) -> str:
    """The time that ``text`` is, or else the text, if it comes from an agent."""
    try:
        return _moment(str(text))
    except (ValueError, OverflowError):
        return str(text)


def _age(text: str, now: datetime.datetime) -> str:
    """How long ago that was, in one unit."""
    seconds = max((now - datetime.datetime.fromisoformat(text)).total_seconds(), 0.0)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _seconds(duration: float) -> str:
    """A duration, in the unit in which it is read easily."""
    if duration >= 120:
        return f"{duration / 60:.0f} min"
    return f"{duration:.2f} s" if duration >= 1 else f"{duration * 1000:.1f} ms"
