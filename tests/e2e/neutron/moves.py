"""A live migration as Nova makes it, and what Nova receives; with agent_flows or without."""

from collections.abc import Callable

from lab.neutron.nova import PLUGGED, UNPLUGGED
from lab.neutron.stack import Neutron
from lab.neutron.tenant import Tenant
from lab.process import wait_until
from lab.vm import Vm

SECONDS = 60
UNTIL_IT_MAY_MOVE = [PLUGGED, UNPLUGGED, PLUGGED]
"""Of a machine that boots, and then moves: the second one that it is plugged in lets it move.

Neutron takes the port down while its destination already works on it, so the second and the third
may come in either order.
"""


def move(
    neutron: Neutron,
    tenant: Tenant,
    vm: Vm,
    host: str,
    before_it_moves: Callable[[], object] = lambda: None,
) -> Vm:
    """Move ``vm``, which has just booted, to ``host`` when Nova may, and wait for the last event.

    ``before_it_moves`` is called while the port is bound to both hosts and Nova waits.
    """

    def wait_for_nova() -> None:
        before_it_moves()
        wait_until(lambda: len(events()) >= before, SECONDS, f"{before} events")
        assert sorted(events()) == sorted(UNTIL_IT_MAY_MOVE), events()

    def events() -> list[str]:
        return neutron.nova.names(vm.port_id)

    def arrived() -> bool:
        return PLUGGED in events()[before:]

    before = len(UNTIL_IT_MAY_MOVE)
    wait_until(lambda: events() == [PLUGGED], SECONDS, "it has booted")
    moved = tenant.migrate(vm, host, wait_for_nova)
    tenant.active(moved, seconds=SECONDS)
    try:
        wait_until(arrived, SECONDS, "Nova is notified that it is plugged in where it is now")
    except TimeoutError as late:
        raise TimeoutError(f"{late}; it has {events()}") from None
    # Neutron may take it down and up once more, when Nova activates the binding or clears its
    # profile. Its API and its RPC server send events apart, each at most every two seconds: which
    # of theirs arrives last is chance.
    assert events()[before:].count(UNPLUGGED) <= 1, events()
    return moved
