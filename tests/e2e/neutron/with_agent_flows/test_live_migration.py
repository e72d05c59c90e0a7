"""A machine moves while it runs, between hosts that each have a switch of their own.

Nova receives the same events in the same order as without agent_flows
(tests/e2e/neutron/test_plain_neutron.py, the same story).
"""

import contextlib

import pytest

from lab.neutron.nova import PLUGGED, UNPLUGGED
from lab.neutron.stack import Neutron
from lab.neutron.tenant import CLOSED, SERVED, Tenant
from lab.process import wait_until
from lab.rest import Body
from tests.e2e.neutron.moves import move
from tests.e2e.neutron.with_agent_flows.conftest import OURS, PLAIN, WATCHED
from tests.e2e.neutron.with_agent_flows.ports import are, full_table, healthy, tasks


@pytest.mark.parametrize(("source", "destination"), [(OURS, WATCHED), (WATCHED, OURS)])
def test_the_destination_proves_the_port_before_the_machine_moves_and_again_after(
    neutron: Neutron, tenant: Tenant, source: str, destination: str
) -> None:
    [vm] = healthy(tenant, 1, source)
    [peer] = healthy(tenant, 1, OURS)

    def proofs() -> int:
        done = tasks(neutron, vm, host=destination, name="verify-wiring")
        return sum(task["task_state"] == "SUCCEEDED" for task in done)

    def proven_while_bound_to_the_source() -> None:
        wait_until(proofs, 60, "the destination's proof")
        # The source has been asked, too, and Neutron leaves the port DOWN.
        are(neutron, [vm], status="DOWN", sync_state="IN_SYNC")
        assert neutron.api.show("ports", vm.port_id)["binding:host_id"] == source
        before.append(proofs())

    before: list[int] = []
    moved = move(neutron, tenant, vm, destination, proven_while_bound_to_the_source)
    are(neutron, [moved], status="ACTIVE", sync_state="IN_SYNC")
    assert proofs() > before[0]
    # Neutron's own driver takes a port's flows away before it writes them again.
    wait_until(lambda: peer.connect(moved.ip, SERVED), 10, "it is reached where it is now")
    assert not peer.connect(moved.ip, CLOSED, timeout=0.5)


@pytest.mark.parametrize(("source", "destination"), [(PLAIN, OURS), (OURS, PLAIN)])
def test_a_machine_moves_between_a_host_with_the_extension_and_one_without(
    neutron: Neutron, tenant: Tenant, source: str, destination: str
) -> None:
    [vm] = tenant.boot(1, host=source)
    tenant.active(vm)
    moved = move(neutron, tenant, vm, destination)
    are(neutron, [moved], status="ACTIVE", sync_state="IN_SYNC" if destination == OURS else None)


def test_nova_waits_while_the_destination_refuses_the_port(
    neutron: Neutron, tenant: Tenant
) -> None:
    [vm] = healthy(tenant, 1, WATCHED)
    healthy(tenant, 1, OURS)

    def refused() -> list[Body]:
        return tasks(neutron, vm, host=OURS, task_state="FAILED")

    def refused_then_healed() -> None:
        [failed, *_] = wait_until(refused, 60, "the destination reports what failed")
        assert failed["name"] == "apply-security-groups"
        assert neutron.nova.names(vm.port_id) == [PLUGGED, UNPLUGGED]
        limit.close()

    with contextlib.ExitStack() as limit:
        limit.enter_context(full_table(neutron.hosts[OURS]))
        moved = move(neutron, tenant, vm, OURS, refused_then_healed)
    are(neutron, [moved], status="ACTIVE", sync_state="IN_SYNC")
