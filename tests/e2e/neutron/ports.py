"""What the tests ask of ports, and of their host's switch."""

import contextlib
import re
from collections.abc import Iterator

from lab.neutron.host import Host
from lab.neutron.stack import Neutron
from lab.neutron.tenant import Tenant
from lab.process import wait_until
from lab.rest import Body
from lab.switch import RULES_INGRESS
from lab.vm import Vm

_SECONDS = 60


def healthy(tenant: Tenant, count: int, host: str) -> list[Vm]:
    """Machines whose ports are ACTIVE, and whose security groups were seen in the switch."""
    vms = tenant.boot(count, host=host)
    are(tenant.neutron, vms, status="ACTIVE", sync_state="IN_SYNC")
    return vms


def are(neutron: Neutron, vms: list[Vm], **fields: object) -> None:
    """Wait until the fields of the machines' ports are these."""
    neutron.api.wait_fields([vm.port_id for vm in vms], _SECONDS, **fields)


@contextlib.contextmanager
def full_table(host: Host, vms: list[Vm]) -> Iterator[None]:
    """While the block lasts the switch takes no flow more into the table of ingress rules, in
    which these machines are the only ones: flows of an earlier test that are removed now would
    make room."""
    ours = {host.switch.ofport(vm.tap) for vm in vms}

    def alone() -> bool:
        ports = re.findall(r"\breg5=(0x[0-9a-f]+)", "\n".join(host.flows(RULES_INGRESS)))
        return {int(port, 16) for port in ports} <= ours

    wait_until(alone, _SECONDS, "the flows of earlier ports are gone")
    with host.switch.full_table():
        yield


def tasks(neutron: Neutron, vm: Vm, **filters: object) -> list[Body]:
    """What was done for the machine's port, newest first."""
    return neutron.api.find("tasks", resource_id=vm.port_id, **filters)


def nothing_is_active_unproven(neutron: Neutron, vms: list[Vm]) -> bool:
    """Whether every port of these that is ACTIVE is IN_SYNC."""
    ours = {vm.port_id for vm in vms}
    found = neutron.api.find("ports", fields=["id", "status", "sync_state"], status="ACTIVE")
    return all(port["sync_state"] == "IN_SYNC" for port in found if port["id"] in ours)
