"""What an agent's server reads of drift and its repair."""

from collections.abc import Sequence

from agent_flows.engine.drift import COMPARE_SWITCH
from agent_flows.report import FlowName, FlowReport, TaskError, TaskState
from lab.process import wait_until
from lab.vm import Vm
from tests.functional.agent.host import Host


def repaired(host: Host, vm: Vm, before: int = 0) -> TaskError:
    """Wait until drift of the port was reported, and repaired after that; what was reported.

    ``before``: so many reports of the port are older.
    """

    def reports() -> Sequence[FlowReport]:
        return host.server.of(vm.port_id)[before:]

    def found() -> FlowReport | None:
        return next((each for each in reports() if each.flow is FlowName.AUDIT), None)

    report = host.server.wait_for(found, what="a report of drift")
    number = reports().index(report)
    (repair,) = host.server.wait_for(lambda: reports()[number + 1 : number + 2], what="the repair")
    assert repair.flow is FlowName.RESYNC
    assert repair.failed is None, repair.failed
    (task,) = report.tasks
    assert (task.name, task.state) == (COMPARE_SWITCH, TaskState.FAILED)
    assert task.error is not None
    assert task.error.type == "Drift"
    return task.error


def settled(host: Host, ports: int) -> None:
    """Wait until no flow runs or waits, and so many ports are proven: by a heartbeat that began
    after now."""
    before = len(host.server.states)

    def idle() -> bool:
        later = host.server.states[before + 1 :]
        busy = ("waiting", "oldest_flow")
        return (
            bool(later)
            and later[-1]["wired"] == ports
            and not any(later[-1][each] for each in busy)
        )

    wait_until(idle, 20, f"{ports} ports are proven and nothing waits")


def right(one: Vm, two: Vm) -> None:
    """What may pass does, and nothing else."""
    # A link that was down has no neighbours at first, and a SYN that is lost is sent again late.
    wait_until(lambda: one.connect(two.ip, 80), 10, "what is allowed passes")
    assert not two.connect(one.ip, 80, timeout=0.4)
