"""A machine moves while it runs, between hosts that each have a switch of their own."""

import pytest

from lab.neutron.stack import Neutron
from lab.neutron.tenant import CLOSED, SERVED, Tenant
from lab.process import wait_until
from tests.e2e.neutron.conftest import OURS, WATCHED
from tests.e2e.neutron.ports import are, healthy, tasks


@pytest.fixture(scope="module")
def neutron(gated_neutron: Neutron) -> Neutron:
    return gated_neutron


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
        assert neutron.api.show("ports", vm.port_id)["binding:host_id"] == source
        before.append(proofs())

    before: list[int] = []
    moved = tenant.migrate(vm, destination, proven_while_bound_to_the_source)
    are(neutron, [moved], status="ACTIVE", sync_state="IN_SYNC")
    assert proofs() > before[0]
    # Neutron's own driver takes a port's flows away before it writes them again.
    wait_until(lambda: peer.connect(moved.ip, SERVED), 10, "it is reached where it is now")
    assert not peer.connect(moved.ip, CLOSED, timeout=0.5)
