"""A machine with two ports on one interface: a trunk's parent port and a subport, by VLAN tag."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from lab.neutron.stack import Neutron
from lab.neutron.tenant import CLOSED, SERVED, Tenant
from lab.process import wait_until
from lab.vm import Vm
from tests.e2e.neutron.with_services.conftest import COMPUTE, NETWORK

SECONDS = 60
TAG = 101


@pytest.fixture
def subnetwork(neutron: Neutron) -> str:
    """The network of the subport."""
    return str(neutron.api.network("10.51.0.0/24")["id"])


@dataclass(frozen=True)
class Trunked:
    """A machine on the first host, its trunk, and its subport."""

    vm: Vm
    trunk: str
    subport: str
    address: str


@pytest.fixture
def trunked(neutron: Neutron, tenant: Tenant, subnetwork: str) -> Iterator[Trunked]:
    api = neutron.api
    groups = [tenant.group]
    parent = api.create("ports", network_id=tenant.network, security_groups=groups)
    subport = api.create("ports", network_id=subnetwork, security_groups=groups)
    tagged = {"port_id": subport["id"], "segmentation_type": "vlan", "segmentation_id": TAG}
    trunk = str(api.create("trunks", port_id=parent["id"], sub_ports=[tagged])["id"])
    # As Nova binds it when the machine is started: the binding names the trunk's bridge.
    owner = {"device_owner": "compute:nova", "device_id": str(uuid.uuid4())}
    parent = api.update("ports", parent["id"], **{"binding:host_id": NETWORK}, **owner)
    [vm] = tenant.start([parent])
    address = str(subport["fixed_ips"][0]["ip_address"])
    vm.add_tagged("sub", TAG, subport["mac_address"], f"{address}/24")
    yield Trunked(vm, trunk, subport["id"], address)
    # Neither port can be deleted before the trunk, nor a trunk that is bound to a host.
    tenant.stop(vm)
    api.update("ports", parent["id"], **{"binding:host_id": ""})
    api.delete("trunks", trunk)
    for port in (subport, parent):
        api.delete("ports", port["id"])


def test_the_rules_of_parent_and_subport_decide_about_their_packets(
    neutron: Neutron, tenant: Tenant, subnetwork: str, trunked: Trunked
) -> None:
    vm, address = trunked.vm, trunked.address
    [beside] = tenant.boot(1, host=COMPUTE)
    peers = tenant.start(
        [
            port
            for host in (NETWORK, COMPUTE)
            for port in neutron.api.ports(1, subnetwork, [tenant.group], host)
        ]
    )
    ids = [trunked.subport, *(machine.port_id for machine in (vm, beside, *peers))]
    neutron.api.wait_fields(ids, SECONDS, status="ACTIVE", sync_state="IN_SYNC")
    assert neutron.api.show("trunks", trunked.trunk)["status"] == "ACTIVE"
    for source, target in [(beside, vm.ip), *((peer, address) for peer in peers)]:
        wait_until(lambda s=source, t=target: s.connect(t, SERVED), SECONDS, "it is reached")
        assert not source.connect(target, CLOSED, timeout=0.5)
    for peer in (beside, *peers):
        assert vm.connect(peer.ip, SERVED)
        assert not vm.connect(peer.ip, CLOSED, timeout=0.5)
    removed = {"sub_ports": [{"port_id": trunked.subport}]}
    neutron.api.request("PUT", f"/trunks/{trunked.trunk}/remove_subports", removed)
    wait_until(
        lambda: not peers[0].connect(address, SERVED, timeout=0.5), SECONDS, "the subport is gone"
    )
    neutron.api.wait_fields([vm.port_id], SECONDS, status="ACTIVE", sync_state="IN_SYNC")
    assert beside.connect(vm.ip, SERVED)
