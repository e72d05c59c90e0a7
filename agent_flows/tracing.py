"""Traces a report from the flow that made it, over the message bus, to the gate that judged it.

Off by default, and then nothing of OpenTelemetry is imported. A message contains reports of many
flows, maybe of hours ago, so the context of the call, which oslo.messaging carries since 18.0, is
not that of a report: each report's own travels beside it.
"""

import contextlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from oslo_config import cfg

from agent_flows import conf as options
from agent_flows.report import FlowReport

Carried = Mapping[str, object]
"""What the RPC context of a message of reports contains for its traces."""
NOTHING: Carried = {}

Judged = Sequence[tuple[FlowReport, str]]
"""Reports, each with the ruling on it."""


class Traces(Protocol):
    """Safe from any thread; no method waits for who takes the spans."""

    def stored(self, reports: Sequence[FlowReport]) -> None:
        """These reports are in the outbox: their flows and tasks have ended."""
        ...

    def sending(self, reports: Sequence[FlowReport]) -> AbstractContextManager[Carried]:
        """The sending of one message; gives what its RPC context is to contain."""
        ...

    def received(self, context: Mapping[str, object]) -> AbstractContextManager[None]:
        """The handling of one message of reports, with this RPC context.

        Raises :class:`agent_flows.validation.Invalid`.
        """
        ...

    def judged(self, judged: Judged, began: int, ended: int) -> None:
        """The gate judged these reports of the message that is handled; in ns of Unix time."""
        ...


class Untraced:
    """The :class:`Traces` of a process that is not traced."""

    def stored(self, reports: Sequence[FlowReport]) -> None:
        """Nothing."""

    def sending(self, reports: Sequence[FlowReport]) -> AbstractContextManager[Carried]:
        return contextlib.nullcontext(NOTHING)

    def received(self, context: Mapping[str, object]) -> AbstractContextManager[None]:
        return contextlib.nullcontext()

    def judged(self, judged: Judged, began: int, ended: int) -> None:
        """Nothing."""


UNTRACED: Traces = Untraced()


def of(conf: cfg.ConfigOpts, service: str) -> Traces:
    """What ``[agent_flows_tracing]`` asks for. Call it in the process that is traced, after a fork.

    ``service`` is the name of the program in the traces. Raises ValueError if the packages of the
    extra ``tracing`` are not installed.
    """
    ours = conf[options.TRACING]
    if not ours.enabled:
        return UNTRACED
    try:
        from agent_flows import spans
    except ImportError as exc:
        raise ValueError(
            f"[{options.TRACING}] enabled needs OpenTelemetry ({exc.name} is not installed): "
            "pip install agent_flows[tracing]"
        ) from None
    return spans.Spans(spans.provider(service, ours.endpoint))
