"""Where flow reports go, and how a port's revision is found."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent_flows.engine.reconciler import Sight
from agent_flows.report import FlowName, FlowReport, TaskError, TaskOutcome, Trouble
from agent_flows.supervision import Troubles, described


def revision_in_dict(port_id: str, port: Mapping[str, Any]) -> int:
    """The revision in the port's dict; 0 for a trusted port, whose dict is empty."""
    revision = port.get("revision_number")
    return revision if isinstance(revision, int) else 0


@dataclass(frozen=True)
class Reporting:
    """``deliver`` gets every port's report as soon as its outcome is known, in the thread that ran
    the flow. ``revision`` returns the revision of a port's dict (empty for a trusted port), and is
    called with port id and dict before the flow runs.
    """

    deliver: Callable[[Sequence[FlowReport]], None] = lambda reports: None
    revision: Callable[[str, Mapping[str, Any]], int] = revision_in_dict


class ReportingSite:
    """The part of a :class:`agent_flows.engine.reconciler.Site` that both kinds of hosts inside
    Neutron share. ``reporting`` may be replaced at any time."""

    forced_flow = FlowName.WIRE

    def __init__(self, troubles: Troubles) -> None:
        self.reporting = Reporting()
        self._troubles = troubles

    def deliver(self, reports: Sequence[FlowReport], sight: Sight) -> None:
        try:
            self.reporting.deliver(reports)
        except Exception as exc:
            self._troubles.report(Trouble.OUTBOX, described(exc))
            raise
        self._troubles.clear(Trouble.OUTBOX)

    def is_deliverable(self) -> bool:
        return True


def amended(report: FlowReport, addition: TaskError) -> FlowReport:
    """``report`` of a failure that caused a further one."""
    further = f"{addition.type}: {addition.message}\n{addition.detail}".rstrip()

    def with_addition(task: TaskOutcome) -> TaskOutcome:
        if task.error is None:
            return task
        detail = "\n".join(filter(None, (task.error.detail, further)))
        return dataclasses.replace(task, error=dataclasses.replace(task.error, detail=detail))

    return dataclasses.replace(report, tasks=tuple(map(with_addition, report.tasks)))
