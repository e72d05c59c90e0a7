"""Reports stop, and an operator lets machines boot without them."""

import contextlib
import sqlite3
from collections.abc import Iterator

from lab.neutron.host import Host
from lab.neutron.stack import Neutron
from lab.neutron.tenant import SERVED, Tenant
from lab.process import wait_until
from lab.vm import Vm
from tests.e2e.neutron.with_agent_flows.conftest import OURS
from tests.e2e.neutron.with_agent_flows.ports import SECONDS, are

_LOST = "CREATE TRIGGER lost BEFORE INSERT ON unsent BEGIN SELECT RAISE(ABORT, 'lost'); END"


@contextlib.contextmanager
def no_reports(host: Host) -> Iterator[None]:
    """While the block lasts, the agent of ``host`` wires ports and cannot report any."""
    with contextlib.closing(sqlite3.connect(host.place / "agent-flows" / "outbox.sqlite")) as box:
        box.execute(_LOST)
        try:
            yield
        finally:
            box.execute("DROP TRIGGER lost")


def is_wired(host: Host, vm: Vm) -> bool:
    """Whether the host's agent has done all it does: the machine's rules are in the switch."""
    return bool(host.flows(71, f"dl_src={vm.mac}"))


def test_a_port_whose_reports_never_come_boots_while_gating_is_off_and_waits_while_it_is_on(
    neutron: Neutron, tenant: Tenant
) -> None:
    controller, host = neutron.controller, neutron.hosts[OURS]
    with no_reports(host):
        [waiting] = tenant.boot(1, host=OURS)
        wait_until(lambda: is_wired(host, waiting), SECONDS, "the port is wired")
        are(neutron, [waiting], status="DOWN")
        controller.run("agent-flows-manage", "gating", "off", "--reason", "reports are lost")
        try:
            are(neutron, [waiting], status="ACTIVE")
            [booting] = tenant.boot(1, host=OURS)
            are(neutron, [booting], status="ACTIVE")
            assert waiting.connect(booting.ip, SERVED)
            unproven = neutron.api.find("ports", sync_state="IN_SYNC", fields=["id"])
            assert not {waiting.port_id, booting.port_id} & {port["id"] for port in unproven}
        finally:
            controller.run("agent-flows-manage", "gating", "on")
        [later] = tenant.boot(1, host=OURS)
        wait_until(lambda: is_wired(host, later), SECONDS, "the port is wired")
        are(neutron, [later], status="DOWN")
        are(neutron, [waiting, booting], status="ACTIVE")
    are(neutron, [waiting, booting, later], status="ACTIVE", sync_state="IN_SYNC")
