"""What the tests ask of ports, and of their host's switch."""

import contextlib
from collections.abc import Iterator

from lab.neutron.host import Host
from lab.neutron.plugging import BRIDGE
from lab.neutron.stack import Neutron
from lab.neutron.tenant import Tenant
from lab.rest import Body
from lab.switch import RULES_INGRESS
from lab.vm import Vm

SECONDS = 60


def healthy(tenant: Tenant, count: int, host: str) -> list[Vm]:
    """Machines whose ports are ACTIVE, and whose security groups were seen in the switch."""
    vms = tenant.boot(count, host=host)
    are(tenant.neutron, vms, status="ACTIVE", sync_state="IN_SYNC")
    return vms


def are(neutron: Neutron, vms: list[Vm], **fields: object) -> None:
    """Wait until the fields of the machines' ports are these."""
    neutron.api.wait_fields([vm.port_id for vm in vms], SECONDS, **fields)


@contextlib.contextmanager
def full_table(host: Host) -> Iterator[None]:
    """While the block lasts the switch takes no flow more into the table of ingress rules.

    The limit is far below what is there: flows of an earlier test that are removed late make no
    room.
    """
    host.switch.set_flow_limit(BRIDGE, RULES_INGRESS, 1)
    try:
        yield
    finally:
        host.switch.lift_flow_limit(BRIDGE, RULES_INGRESS)


def tasks(neutron: Neutron, vm: Vm, **filters: object) -> list[Body]:
    """What was done for the machine's port, newest first."""
    return neutron.api.find("tasks", resource_id=vm.port_id, **filters)


def nothing_is_active_unproven(neutron: Neutron, vms: list[Vm]) -> bool:
    """Whether every port of these that is ACTIVE is IN_SYNC."""
    ours = {vm.port_id for vm in vms}
    found = neutron.api.find("ports", fields=["id", "status", "sync_state"], status="ACTIVE")
    return all(port["sync_state"] == "IN_SYNC" for port in found if port["id"] in ours)
