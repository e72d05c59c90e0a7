"""From the flows that the switch refused to the ports that they were for."""

from collections.abc import Iterable

from agent_flows.engine.task import PortErrors, TaskFailed
from agent_flows.errors import ErrorType
from agent_flows.openflow.ofctl import Refusal, SwitchError
from agent_flows.report import TaskError
from agent_flows.secgroups.plan import Plan


def blame(exc: SwitchError, plan: Plan) -> PortErrors | TaskFailed:
    """The error to raise: with the ports' names, if the refused flow is one of ``plan``."""
    errors: dict[str, TaskError] = {}
    for refusal in exc.refusals:
        error = TaskError(
            ErrorType.FLOW_REFUSED, f"the switch refused a flow: {refusal.error}", refusal.text
        )
        for port_id in _owners(refusal, plan):
            errors.setdefault(port_id, error)
    if errors:
        return PortErrors(errors)
    return TaskFailed(TaskError(ErrorType.FLOW_REFUSED, exc.message, exc.detail))


def _owners(refusal: Refusal, plan: Plan) -> Iterable[str]:
    if refusal.line is not None:
        return plan.owners[refusal.line] if refusal.line < len(plan.owners) else ()
    if not refusal.cookie:
        return ()
    named = f"add cookie={refusal.cookie:#x},"
    return {
        port_id
        for line, ports in zip(plan.lines, plan.owners, strict=False)
        if line.startswith(named)
        for port_id in ports
    }
