"""Writes what a process is doing on SIGUSR2: OpenStack's Guru Meditation Report, by oslo.reports.

It contains every thread's stack, the options without secrets, and sections of ours. It goes to
standard error, or to a file in ``[oslo_reports] log_dir``.
"""

import signal
from collections.abc import Callable, Mapping
from importlib import metadata
from types import FrameType

from oslo_config import cfg
from oslo_reports import opts

Section = Callable[[], Mapping[str, object]]
"""What a section shows. Called in a handler of a signal, in the main thread: it must not wait for a
lock that this thread may hold."""


def register(conf: cfg.ConfigOpts) -> None:
    """Register the section ``oslo_reports`` of the configuration."""
    opts.set_defaults(conf)


def on_signal(service: str, conf: cfg.ConfigOpts) -> None:
    """Write a report whenever SIGUSR2 arrives. Call it in the main thread.

    ``service`` begins the names of files.
    """

    def write(number: int, frame: FrameType | None) -> None:
        # Imported by the first signal: 2 MiB and 0.15 s that hardly any process needs.
        from oslo_reports.guru_meditation_report import TextGuruMeditation

        for title, section in _sections.items():
            TextGuruMeditation.register_section(title, _model(section))
        _sections.clear()
        TextGuruMeditation.handle_signal(_Version(), service, conf.oslo_reports.log_dir, frame)

    signal.signal(signal.SIGUSR2, write)


def add_section(title: str, section: Section) -> None:
    """Have the reports of this process contain ``section``."""
    _sections[title] = section


def add_to_others(title: str, section: Section) -> None:
    """As :func:`add_section`, in a process that is not ours and writes reports by itself."""
    from oslo_reports.guru_meditation_report import TextGuruMeditation

    TextGuruMeditation.register_section(title, _model(section))


_sections: dict[str, Section] = {}


class _Version:
    """As oslo.reports asks for it."""

    def vendor_string(self) -> str:
        return "agent_flows"

    def product_string(self) -> str:
        return "agent_flows"

    def version_string_with_package(self) -> str:
        return metadata.version("agent_flows")


def _model(section: Section) -> Callable[[], object]:
    from oslo_reports.models.with_default_views import ModelWithDefaultViews

    def made() -> object:
        return ModelWithDefaultViews(dict(section()))

    return made
