"""The pages over HTTP: resources of falcon that read a source."""

import datetime
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import falcon

from agent_flows.page import pages, render
from agent_flows.page.source import Source

_ROOT = "/page"


@dataclass(frozen=True)
class Site:
    """Where the pages come from: ``source`` is entered for each request, ``now`` is the time."""

    source: Callable[[], AbstractContextManager[Source]]
    now: Callable[[], datetime.datetime]

    def answer(
        self, response: falcon.Response, make: Callable[[Source, datetime.datetime], str]
    ) -> None:
        with self.source() as source:
            text = make(source, self.now())
        show(response, text)


class _Page:
    def __init__(self, site: Site) -> None:
        self._site = site

    def policy(self, method: str) -> str:
        """What a caller needs where callers are checked: the same as for reading the API."""
        return "read"


class Overview(_Page):
    """``GET /``: what is not in sync."""

    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        self._site.answer(response, pages.overview)


class Ports(_Page):
    """``GET /page/ports``: a page of ports; leads to a port if its id is asked for as a name."""

    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        asked = _asked(request)
        port_id = pages.port_named(asked)
        if port_id is not None:
            raise falcon.HTTPSeeOther(f"{_ROOT}/ports/{port_id}")
        self._site.answer(response, lambda source, now: pages.ports(source, asked, now))


class Port(_Page):
    """``GET /page/ports/{id}``: one port, with the timeline of its tasks."""

    def on_get(self, request: falcon.Request, response: falcon.Response, resource_id: str) -> None:
        self._site.answer(response, lambda source, now: pages.port(source, resource_id, now))


class Hosts(_Page):
    """``GET /page/hosts``: a page of agents."""

    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        asked = _asked(request)
        self._site.answer(response, lambda source, now: pages.hosts(source, asked, now))


class Host(_Page):
    """``GET /page/hosts/{host}``: the agent of a host, and what its flows did."""

    def on_get(self, request: falcon.Request, response: falcon.Response, resource_id: str) -> None:
        self._site.answer(response, lambda source, now: pages.host(source, resource_id, now))


class File(_Page):
    """``GET /page/style.css`` and the other files beside the pages."""

    def __init__(self, site: Site, name: str) -> None:
        super().__init__(site)
        self._name = name

    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        response.set_headers(dict(render.HEADERS))
        response.content_type = render.FILES[self._name]
        response.data = render.file(self._name)


def routes(site: Site) -> dict[str, object]:
    """The resources of the pages by their paths; one that is missing raises
    :class:`agent_flows.page.pages.Missing`, a filter that cannot be
    :class:`agent_flows.validation.Invalid`."""
    return {
        "/": Overview(site),
        f"{_ROOT}/ports": Ports(site),
        f"{_ROOT}/ports/{{resource_id}}": Port(site),
        f"{_ROOT}/hosts": Hosts(site),
        f"{_ROOT}/hosts/{{resource_id}}": Host(site),
        **{f"{_ROOT}/{name}": File(site, name) for name in render.FILES},
    }


def is_page(request: falcon.Request) -> bool:
    """Whether the answer is for a person, also if it is a refusal."""
    route = request.uri_template or ""
    return route == "/" or route.startswith(f"{_ROOT}/")


def show(response: falcon.Response, text: str) -> None:
    """Answer with a page; the status is the caller's."""
    response.set_headers(dict(render.HEADERS))
    response.content_type = falcon.MEDIA_HTML
    response.text = text


def _asked(request: falcon.Request) -> Mapping[str, str]:
    """The parameters of a form, without those left empty; the last of several."""
    given = {
        name: (value[-1] if isinstance(value, list) else value).strip()
        for name, value in request.params.items()
    }
    return {name: text for name, text in given.items() if text}
