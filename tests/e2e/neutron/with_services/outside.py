"""The world outside: an external network, and a neighbour in it."""

from lab.neutron.stack import Neutron
from lab.traffic import Connection

OUTSIDE = "203.0.113.1"
"""The neighbour, which is also the gateway."""


def external_network(neutron: Neutron) -> str:
    """The physical network, with floating IPs; made once."""
    if found := neutron.api.find("networks", name="out"):
        return str(found[0]["id"])
    neutron.underlay.add_address(f"{OUTSIDE}/24")
    physical = {"provider:network_type": "flat", "provider:physical_network": "physnet1"}
    network = neutron.api.create("networks", name="out", **{"router:external": True}, **physical)
    neutron.api.create(
        "subnets",
        network_id=network["id"],
        cidr="203.0.113.0/24",
        ip_version=4,
        enable_dhcp=False,
        gateway_ip=OUTSIDE,
        allocation_pools=[{"start": "203.0.113.100", "end": "203.0.113.200"}],
    )
    return str(network["id"])


def reach_from_outside(neutron: Neutron, address: str, port: int) -> str | None:
    """Name of the machine that answers there, or None."""
    try:
        with Connection(neutron.controller.namespace, address, port, "tcp", 1.0) as connection:
            return connection.ask()
    except OSError:
        return None
