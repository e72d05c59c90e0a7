"""Agent and server as separate processes, and outages of each of them and of RabbitMQ."""

import sqlite3
from contextlib import ExitStack

import pytest

from lab.model import egress_to_anywhere
from lab.process import wait_until
from lab.product import Site
from lab.rabbit import Rabbit
from lab.switch import Switch
from lab.tenant import Tenant
from lab.vm import Vm


@pytest.fixture
def five(tenant: Tenant) -> list[Vm]:
    """Three web servers and two databases, declared and not yet plugged."""
    web = [tenant.boot(f"web{n}", tenant.web) for n in (1, 2, 3)]
    return [*web, *(tenant.boot(f"db{n}", tenant.db) for n in (1, 2))]


def test_five_ports_become_active_and_pass_what_their_groups_allow(
    tenant: Tenant, five: list[Vm]
) -> None:
    web1, web2, _, db1, db2 = five
    tenant.plug(*five)
    tenant.active(*five)
    assert web1.reach(db1.ip, 5432) == "db1"
    assert db1.reach(web2.ip, 80) == "web2"
    assert db1.ping(web1.ip)
    assert not db2.connect(db1.ip, 5432)
    assert not web1.connect(db1.ip, 80)
    assert not web1.ping(db1.ip)
    for vm in five:
        states = {task["name"]: task["task_state"] for task in tenant.site.api.tasks(vm.port_id)}
        assert set(states.values()) == {"SUCCEEDED"}, states


def test_a_killed_agent_opens_no_port_and_its_successor_wires_the_rest(
    site: Site, tenant: Tenant, five: list[Vm]
) -> None:
    web1, web2, web3, db1, db2 = five
    tenant.plug(web1, db1)
    tenant.active(web1, db1)
    with web1.open(db1.ip, 5432) as connection:
        assert connection.ask() == "db1"
        tenant.plug(web2, web3, db2)
        site.agent.kill()
        # Ports already ACTIVE pass what they passed.
        assert connection.ask() == "db1"
        # The others pass what their groups allow, or nothing; neither includes this.
        assert not db2.connect(db1.ip, 5432)
        assert not web2.connect(db2.ip, 80)
        site.start_agent()
        tenant.active(*five)
        assert connection.ask() == "db1"
    assert web3.reach(db2.ip, 5432) == "db2"


def test_an_outage_of_rabbitmq_disturbs_no_traffic_and_loses_no_change(
    site: Site, rabbit: Rabbit, tenant: Tenant, five: list[Vm]
) -> None:
    web1, web2, web3, db1, _ = five
    tenant.plug(web1, web2, db1)
    tenant.active(web1, web2, db1)
    with web1.open(db1.ip, 5432) as connection:
        assert connection.ask() == "db1"
        rabbit.pause()
        try:
            web2.unplug()
            tenant.plug(web3)
            assert connection.ask() == "db1"
            assert web1.reach(db1.ip, 5432) == "db1"
        finally:
            rabbit.resume()
        site.api.wait_port(web2.port_id, 60, status="DOWN", sync_state="ABSENT")
        site.api.wait_port(web3.port_id, 60, status="ACTIVE", sync_state="IN_SYNC")
        assert connection.ask() == "db1"
    web3.forget_neighbours()
    assert web3.reach(db1.ip, 5432) == "db1"


def test_a_member_that_joined_elsewhere_during_an_outage_is_in_force_soon_after_it(
    site: Site, rabbit: Rabbit, switch: Switch, tenant: Tenant
) -> None:
    """This host has nothing to report meanwhile, and the server's cast is lost with its process."""
    db1 = tenant.boot("db1", tenant.db)
    tenant.plug(db1)
    tenant.active(db1)
    elsewhere = tenant.boot("elsewhere", declared=False)
    with ExitStack() as undo:
        undo.callback(elsewhere.unplug, "br-phys")
        switch.vsctl("add-port", "br-phys", elsewhere.tap, f"tag={tenant.vlan}")
        elsewhere.raise_link()
        assert not elsewhere.connect(db1.ip, 5432)
        rabbit.pause()
        try:
            undo.callback(site.api.delete, "ports", elsewhere.port_id)
            fields = {"binding:host_id": "compute-2"}
            tenant.cloud.port(elsewhere, tenant.network, [tenant.web], **fields)
            assert site.api.port(db1.port_id)["sync_state"] == "SYNCING"
            site.server.kill()
        finally:
            rabbit.resume()
        site.start_server()
        wait_until(
            lambda: elsewhere.connect(db1.ip, 5432), 60, "the new member reaches the database"
        )
        site.api.wait_port(db1.port_id, 10, status="ACTIVE", sync_state="IN_SYNC")


def test_a_killed_agent_still_delivers_the_reports_it_had_written(
    site: Site, rabbit: Rabbit, switch: Switch, tenant: Tenant
) -> None:
    # Alone: of a port that is not plugged the agent may have a report to write as well.
    db1 = tenant.boot("db1", tenant.db)
    tenant.plug(db1)
    tenant.active(db1)
    with ExitStack() as outage:
        with switch.held_vswitchd():
            # The agent has the new rules, and its flow waits for the switch...
            tenant.cloud.group("db", egress_to_anywhere(), tenant.db)
            wait_until(lambda: a_flow_waits(site), 20, "the port's flow waits for the switch")
            # ...when the bus goes away, so the outcome cannot be reported.
            rabbit.pause()
            outage.callback(rabbit.resume)
        kept = wait_until(lambda: reports_kept(site, tenant.db), 20, "a report is kept")
        site.agent.kill()
        assert site.api.port(db1.port_id)["sync_state"] != "IN_SYNC"
    assert not kept & reports_stored(site, db1)
    site.start_agent()
    wait_until(lambda: kept <= reports_stored(site, db1), 60, "the report has arrived")
    tenant.active(db1)
    wait_until(lambda: not reports_kept(site, tenant.db), 20, "the outbox drops what is stored")


def a_flow_waits(site: Site) -> bool:
    """Whether the agent's heartbeats name a flow that has run for half a second."""
    return any(agent["state"].get("oldest_flow", 0) >= 0.5 for agent in site.api.find("agents"))


def reports_kept(site: Site, resource: str) -> set[str]:
    """The ids of the reports of a port, or of a security group, in the agent's outbox."""
    with sqlite3.connect(f"file:{site.state_dir}/outbox.sqlite?mode=ro", uri=True) as outbox:
        rows = outbox.execute("SELECT id FROM unsent WHERE resource_id = ?", (resource,))
        return {row[0] for row in rows}


def reports_stored(site: Site, vm: Vm) -> set[str]:
    """The ids of the port's reports that the server has in its history."""
    return {task["flow_id"] for task in site.api.tasks(vm.port_id)}


def test_a_restarted_server_has_every_port_active_again(
    site: Site, tenant: Tenant, five: list[Vm]
) -> None:
    web1, web2, _, db1, _ = five
    tenant.plug(web1)
    tenant.active(web1)
    site.server.kill()
    tenant.plug(web2, db1)
    site.start_server()
    tenant.active(web1, web2, db1)
    assert web2.reach(db1.ip, 5432) == "db1"
