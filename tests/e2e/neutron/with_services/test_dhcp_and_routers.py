"""Neutron's own DHCP and L3 agents beside our driver: leases, routed packets, a floating IP."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.model import ingress
from lab.neutron.lease import lease
from lab.neutron.services import ServiceAgent
from lab.neutron.stack import Neutron
from lab.neutron.tenant import CLOSED, SERVED
from lab.process import wait_until
from lab.rest import Body
from lab.traffic import Listener
from lab.vm import Vm
from tests.e2e.neutron.with_services.conftest import COMPUTE, NETWORK
from tests.e2e.neutron.with_services.outside import (
    OUTSIDE,
    external_network,
    reach_from_outside,
)

SECONDS = 60
OUTSIDE_SERVICE = 8080


@dataclass(frozen=True)
class Site:
    """A router with two networks and a way out, a DHCP server in each network, and a machine in
    each, on either host. Their group lets in tcp 80."""

    neutron: Neutron
    router: str
    external: str
    ports: list[Body]
    near: Vm
    far: Vm


@pytest.fixture(scope="module")
def dhcp(neutron: Neutron) -> Iterator[ServiceAgent]:
    with neutron.service_agent("dhcp", NETWORK) as agent:
        yield agent


@pytest.fixture(scope="module")
def site(neutron: Neutron, dhcp: ServiceAgent, l3_agents: None) -> Site:
    """Everything is created at once, as by a template."""
    assert dhcp.daemon.running
    assert l3_agents is None
    api = neutron.api
    external = external_network(neutron)
    router = api.create("routers", name="r", external_gateway_info={"network_id": external})
    group = api.group("web", [ingress(protocol="tcp", port=SERVED)])
    ports = []
    for cidr, host in (("10.41.0.0/24", COMPUTE), ("10.42.0.0/24", NETWORK)):
        network = api.create("networks", name=cidr)
        subnet = api.create("subnets", network_id=network["id"], cidr=cidr, ip_version=4)
        path = f"/routers/{router['id']}/add_router_interface"
        api.request("PUT", path, {"subnet_id": subnet["id"]})
        ports += api.ports(1, network["id"], [group], host)
    near, far = neutron.boot(ports)
    api.wait_ports([port["id"] for port in ports], "ACTIVE", SECONDS)
    for vm in (near, far):
        vm.listen(SERVED)
        vm.listen(CLOSED)
    return Site(neutron, router["id"], external, ports, near, far)


def test_ports_of_the_agents_are_active_and_proven(site: Site) -> None:
    api = site.neutron.api
    owners = ["network:dhcp", "network:router_interface", "network:router_gateway"]

    def all_proven() -> bool:
        ports = api.find("ports", device_owner=owners)
        states = {(port["status"], port["sync_state"]) for port in ports}
        return len(ports) == 5 and states == {("ACTIVE", "IN_SYNC")}

    wait_until(all_proven, SECONDS, "two DHCP ports and three of the router", poll=0.2)


def test_a_machine_gets_its_own_address_by_dhcp(site: Site, directory: Path) -> None:
    for vm, port in zip((site.near, site.far), site.ports, strict=True):
        assert lease(vm, directory) == port["fixed_ips"][0]["ip_address"]


def test_routed_packets_pass_as_the_rules_of_the_receiver_decide(
    site: Site, directory: Path
) -> None:
    for vm in (site.near, site.far):
        lease(vm, directory)  # and its default route
    for source, target in ((site.near, site.far), (site.far, site.near)):
        wait_until(
            lambda s=source, t=target: s.connect(t.ip, SERVED), SECONDS, "through the router"
        )
        assert not source.connect(target.ip, CLOSED, timeout=0.5)
        assert not source.ping(target.ip, timeout=0.5)
    assert site.near.ping("10.41.0.1")


def test_the_outside_is_reached_and_reaches_a_floating_ip_on_the_open_port_only(
    site: Site, directory: Path
) -> None:
    neutron = site.neutron
    lease(site.near, directory)
    server = Listener(neutron.controller.namespace, OUTSIDE_SERVICE, "tcp", "outside")
    try:
        wait_until(
            lambda: site.near.reach(OUTSIDE, OUTSIDE_SERVICE) == "outside", SECONDS, "source NAT"
        )
    finally:
        server.close()
    floating = neutron.api.create(
        "floatingips", floating_network_id=site.external, port_id=site.near.port_id
    )
    address = str(floating["floating_ip_address"])
    wait_until(
        lambda: reach_from_outside(neutron, address, SERVED) == site.near.name,
        SECONDS,
        "the floating IP",
    )
    assert reach_from_outside(neutron, address, CLOSED) is None
