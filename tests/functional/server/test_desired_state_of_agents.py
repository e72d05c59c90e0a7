"""Agents whose desired state differs from the server's: noticed at heartbeats, and shown."""

from collections.abc import Callable
from typing import Any

import pytest

from agent_flows.report import FlowName
from agent_flows.rpc.revisions import Revisions
from agent_flows.server.core import agent_view, clock
from agent_flows.server.core.liveness import Liveness
from agent_flows.server.core.metrics import AgentGauges
from lab.model import new_id
from lab.server_parts import FakeAgent, Server

MakePort = Callable[..., str]
OTHER = "0" * 32
INTERVAL = 10


def gauges(server: Server) -> list[AgentGauges]:
    with server.database.reader() as session:
        return agent_view.gauges(session, Liveness(server.rules, clock.now()))


def desired(server: Server, host: str = "host-a") -> Any:
    return server.show("agents", host)["desired"]


def digest(server: Server, host: str = "host-a") -> str:
    return server.store.get_revisions(host).digest()


def test_revisions_are_those_of_the_specs(
    server: Server, agent: FakeAgent, make_port: MakePort, group: str
) -> None:
    port = make_port()
    make_port(**{"binding:host_id": "host-b"})
    specs = agent.specs()
    found = server.store.get_revisions("host-a")
    assert found.ports == {port: specs.ports[port].revision}
    assert found.security_groups == {group: specs.security_groups[group].revision}
    assert found.awaited == ()
    assert agent.beat().desired == found.digest()
    assert server.store.get_revisions("host-c") == Revisions({}, {})


def test_every_change_of_what_a_host_needs_changes_its_digest(
    server: Server, agent: FakeAgent, make_port: MakePort
) -> None:
    """And no other does."""
    addresses, remote, own, network = (new_id() for _ in range(4))
    rule = {"direction": "ingress"}
    server.put("address-groups", addresses, addresses=["192.0.2.0/24"])
    server.put("security-groups", remote)
    rules = [{**rule, "remote_address_group_id": addresses}, {**rule, "remote_group_id": remote}]
    server.put("security-groups", own, security_group_rules=rules)
    vlan = {"network_type": "vlan", "physical_network": "physnet1"}
    server.put("networks", network, **vlan, segmentation_id=7, mtu=1400)
    port = make_port(network_id=network, security_groups=[own])
    seen = [agent.beat().desired]

    def changed() -> bool:
        seen.append(agent.beat().desired)
        return seen[-1] not in seen[:-1]

    body = {
        "network_id": network,
        "mac_address": "fa:16:3e:00:aa:01",
        "security_groups": [own],
        "binding:host_id": "host-a",
    }
    server.put("ports", port, **body)
    assert changed()
    server.put("networks", network, **vlan, segmentation_id=7, mtu=1300)
    assert changed()
    server.put("networks", network, **vlan, segmentation_id=8, mtu=1300)
    assert changed()
    server.put("address-groups", addresses, addresses=["192.0.2.0/25"])
    assert changed()
    member = make_port(**{"security_groups": [remote], "binding:host_id": "host-b"})
    assert changed()
    server.delete("ports", member)
    assert changed()
    server.put("security-groups", own, security_group_rules=rules, stateful=False)
    assert changed()
    server.put("security-groups", own, security_group_rules=rules[:1], stateful=False)
    assert changed()
    more = make_port()
    assert changed()
    server.delete("ports", more)
    assert agent.beat().desired == seen[-2]
    # These concern no flow of the host.
    server.put("ports", port, **body, name="web")
    make_port(**{"security_groups": [own], "binding:host_id": "host-b"})
    agent.wire(port)
    assert agent.beat().desired == seen[-2]


def test_an_agent_in_step_is_shown_so(
    server: Server, agent: FakeAgent, make_port: MakePort
) -> None:
    make_port()
    agent.beat(desired=digest(server))
    assert desired(server) == {"in_step": True, "differs_since": None}


def test_an_agent_of_the_first_release_is_not_compared(
    server: Server, agent: FakeAgent, make_port: MakePort, later: Callable[[float], None]
) -> None:
    port = make_port()
    agent.wire(port)
    for _ in range(10):
        later(INTERVAL)
        agent.beat()
    assert desired(server) is None
    assert [each.behind for each in gauges(server)] == [None]
    assert server.state(port) == ("ACTIVE", "IN_SYNC")


def test_an_agent_that_stays_behind_loses_its_claims_and_is_asked_once(
    server: Server, agent: FakeAgent, make_port: MakePort, later: Callable[[float], None]
) -> None:
    port, absent = make_port(), make_port()
    agent.wire(port)
    agent.send(agent.report(absent, FlowName.UNWIRE))
    server.new_casts()
    later(1)
    agent.beat(desired=OTHER)
    since = desired(server)["differs_since"]
    assert desired(server)["in_step"] is False
    for _ in range(3):
        later(INTERVAL)
        agent.beat(desired=OTHER)
        assert server.state(port) == ("ACTIVE", "IN_SYNC")
    later(INTERVAL)
    agent.beat(desired=OTHER)
    assert server.state(port) == ("ACTIVE", "SYNCING")
    assert server.state(absent) == ("DOWN", "ABSENT")
    assert server.new_casts() == [("host-a", "resync", frozenset({port}))]
    health = server.rest.simulate_get("/healthz").json
    assert health["agents"]["host-a"].startswith("its agent has another desired state")
    assert desired(server) == {"in_step": False, "differs_since": since}
    assert [each.behind for each in gauges(server)] == [4 * INTERVAL]
    for _ in range(7):
        later(INTERVAL)
        agent.beat(desired=OTHER)
        server.sweeper.sweep()
    assert server.state(port) == ("ACTIVE", "UNKNOWN")
    # What is reported now names the server's revisions, and holds.
    agent.wire(port)
    for _ in range(7):
        later(INTERVAL)
        agent.beat(desired=OTHER)
    assert server.state(port) == ("ACTIVE", "IN_SYNC")
    agent.beat(desired=digest(server))
    assert desired(server) == {"in_step": True, "differs_since": None}


def test_an_agent_that_learns_is_not_behind(
    server: Server, agent: FakeAgent, make_port: MakePort, later: Callable[[float], None]
) -> None:
    """The desired state of a busy host differs at each heartbeat, and is never the same."""
    port = make_port()
    agent.wire(port)
    later(1)
    for number in range(20):
        later(INTERVAL)
        agent.beat(desired=f"{number:032x}")
    assert server.state(port) == ("ACTIVE", "IN_SYNC")


def test_a_port_that_is_unknown_is_awaited_until_it_is_reported(
    server: Server, agent: FakeAgent, make_port: MakePort, later: Callable[[float], None]
) -> None:
    port = make_port()
    agent.wire(port)
    known = digest(server)
    later(36)
    server.sweeper.sweep()
    assert server.store.get_revisions("host-a").awaited == (port,)
    # The agent is back, and the casts that ask it are lost.
    agent.beat(desired=known)
    for _ in range(7):
        later(INTERVAL)
        agent.beat(desired=known)
        server.sweeper.sweep()
    assert server.state(port) == ("ACTIVE", "UNKNOWN")
    assert agent.beat(desired=known).desired != known
    agent.wire(port)
    assert agent.beat(desired=known).desired == known


def test_a_host_in_trouble_is_not_compared(
    server: Server, agent: FakeAgent, make_port: MakePort
) -> None:
    """It knows itself that its ports are to be wired again."""
    agent.wire(make_port())
    assert agent.beat(desired=OTHER, troubles={"switch": "ovs-vswitchd is gone"}).desired == ""
    assert desired(server) is None
    assert agent.beat(desired=OTHER).desired == digest(server)


@pytest.mark.parametrize("hostile", ["x" * 32, OTHER + "0", 7, None])
def test_no_hostile_digest_is_stored(server: Server, agent: FakeAgent, hostile: object) -> None:
    with pytest.raises(ValueError, match="32 hexadecimal digits"):
        agent.beat(desired=hostile)
    assert desired(server) is None
