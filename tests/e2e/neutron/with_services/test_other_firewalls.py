"""The extension beside ``iptables_hybrid`` and ``noop``: what is proven, and which packets pass."""

from collections.abc import Iterator

import pytest

from lab.neutron.configuration import AgentOptions
from lab.neutron.stack import Neutron
from lab.neutron.tenant import CLOSED, SERVED, Tenant
from lab.process import run, wait_until
from lab.vm import Vm
from tests.e2e.neutron.with_services.conftest import COMPUTE, NETWORK, OPTIONS, OURS

SECONDS = 60
HYBRID, NONE = "iptables_hybrid", "noop"


@pytest.fixture(scope="module", params=[HYBRID, NONE])
def driver(request: pytest.FixtureRequest, neutron: Neutron) -> Iterator[str]:
    """The second host has this driver."""
    name: str = request.param
    host = neutron.hosts[COMPUTE]
    host.restart_agent(AgentOptions(name, ("agent_flows",), OPTIONS))
    wait_until(lambda: _reports_hybrid(neutron) is (name == HYBRID), SECONDS, "its state report")
    yield name
    host.restart_agent(OURS)
    wait_until(lambda: not _reports_hybrid(neutron), SECONDS, "its state report")


def _reports_hybrid(neutron: Neutron) -> bool:
    """Whether Neutron binds ports of the host for a Linux bridge in between."""
    [agent] = neutron.api.find("agents", host=COMPUTE, binary="neutron-openvswitch-agent")
    return bool(agent["configurations"].get("ovs_hybrid_plug"))


@pytest.fixture
def vms(neutron: Neutron, tenant: Tenant, driver: str) -> list[Vm]:
    """Two machines beside that driver, then one on the host with ours; ACTIVE and IN_SYNC."""
    assert driver
    found = tenant.boot(2, host=COMPUTE) + tenant.boot(1, host=NETWORK)
    ids = [vm.port_id for vm in found]
    neutron.api.wait_fields(ids, SECONDS, status="ACTIVE", sync_state="IN_SYNC")
    return found


def reached(source: Vm, target: Vm) -> None:
    """The first packets may be lost: a host learns late where another one's machines are."""
    wait_until(lambda: source.connect(target.ip, SERVED), SECONDS, f"{target.ip} is reached")


def test_packets_pass_as_that_driver_decides(driver: str, vms: list[Vm]) -> None:
    here, beside, elsewhere = vms
    for source in (beside, elsewhere):
        reached(source, here)
        # Without a firewall everything passes.
        assert source.connect(here.ip, CLOSED, timeout=0.5) is (driver == NONE)
    reached(here, elsewhere)
    assert not here.connect(elsewhere.ip, CLOSED, timeout=0.5)


@pytest.mark.parametrize("driver", [HYBRID], indirect=True)
def test_a_machine_whose_iptables_rules_are_deleted_is_down_with_the_reason(
    neutron: Neutron, driver: str, vms: list[Vm]
) -> None:
    assert driver == HYBRID
    machine, *_ = vms
    namespace = neutron.hosts[COMPUTE].switch.namespace
    flush = ["iptables", "--wait", "-F", f"neutron-openvswi-i{machine.port_id[:10]}"]

    def is_down() -> bool:
        # Neutron's agent writes all rules again whenever a group of the host changes.
        run(namespace.argv(flush))
        [port] = neutron.api.find("ports", id=machine.port_id, fields=["status", "sync_state"])
        return port == {"status": "DOWN", "sync_state": "OUT_OF_SYNC"}

    wait_until(is_down, SECONDS, "the port is DOWN and OUT_OF_SYNC", poll=1)
    failed = neutron.api.find("tasks", resource_id=machine.port_id, task_state="FAILED")
    assert failed[0]["error"]["type"] == "RulesMissing"
