"""Distributed routers: every compute host routes, and has the floating IPs of its machines."""

import dataclasses

import pytest

from lab.model import ingress
from lab.neutron.stack import Neutron
from lab.neutron.tenant import CLOSED, SERVED
from lab.process import wait_until
from lab.vm import Vm
from tests.e2e.neutron.with_services.conftest import COMPUTE
from tests.e2e.neutron.with_services.outside import external_network, reach_from_outside

SECONDS = 90  # until the agents have all of a router on both hosts


@dataclasses.dataclass(frozen=True)
class Site:
    """``here`` and ``beside`` are on one host, in two networks."""

    neutron: Neutron
    external: str
    here: Vm
    beside: Vm


@pytest.fixture(scope="module")
def site(neutron: Neutron, l3_agents: None) -> Site:
    assert l3_agents is None
    api = neutron.api
    external = external_network(neutron)
    gateway = {"network_id": external}
    router = api.create("routers", name="d", distributed=True, external_gateway_info=gateway)
    group = api.group("web", [ingress(protocol="tcp", port=SERVED)])
    networks = []
    for cidr in ("10.61.0.0/24", "10.62.0.0/24"):
        network = api.create("networks", name=cidr)
        subnet = api.create(
            "subnets", network_id=network["id"], cidr=cidr, ip_version=4, enable_dhcp=False
        )
        path = f"/routers/{router['id']}/add_router_interface"
        api.request("PUT", path, {"subnet_id": subnet["id"]})
        networks.append((network["id"], subnet["gateway_ip"]))
    (one, one_way), (other, other_way) = networks
    plan = [(one, one_way, COMPUTE), (other, other_way, COMPUTE)]
    ports = [api.ports(1, network, [group], host)[0] for network, _, host in plan]
    vms = neutron.boot(ports)
    for vm, (_, way, _) in zip(vms, plan, strict=True):
        vm.namespace.ip("route", "replace", "default", "via", way)
        vm.listen(SERVED)
        vm.listen(CLOSED)
    ids = [vm.port_id for vm in vms]
    api.wait_fields(ids, SECONDS, status="ACTIVE", sync_state="IN_SYNC")
    return Site(neutron, external, *vms)


def test_routed_packets_pass_as_the_rules_of_the_receiver_decide(site: Site) -> None:
    """On one host. Between hosts Neutron itself may take longer than a test should wait."""
    wait_until(lambda: site.here.connect(site.beside.ip, SERVED), SECONDS, "it is routed")
    assert not site.here.connect(site.beside.ip, CLOSED, timeout=0.5)
    assert not site.here.ping(site.beside.ip, timeout=0.5)


def test_a_floating_ip_on_the_machines_own_host_lets_in_the_open_port_only(site: Site) -> None:
    floating = site.neutron.api.create(
        "floatingips", floating_network_id=site.external, port_id=site.here.port_id
    )
    address = str(floating["floating_ip_address"])
    wait_until(
        lambda: reach_from_outside(site.neutron, address, SERVED) == site.here.name,
        SECONDS,
        "the floating IP",
    )
    assert reach_from_outside(site.neutron, address, CLOSED) is None


def test_no_report_about_the_routers_interfaces_is_an_error(site: Site) -> None:
    """Every host with a machine behind the router reports them, and they are bound to none."""
    for host in site.neutron.hosts.values():
        assert "ERROR agent_flows.reporting" not in host.agent_log
