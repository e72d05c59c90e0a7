"""PUT and DELETE: whole desired state, revisions that rise only when something changed."""

from typing import Any

import pytest

from agent_flows.report import FlowName
from agent_flows.rpc.answers import MOVED_AWAY, is_no_fault
from agent_flows.server.standalone import bodies
from lab.model import flow_report, new_id
from lab.server_parts import FakeAgent, Server

PORT = new_id()
BODY: dict[str, Any] = {
    "mac_address": "fa:16:3e:00:00:01",
    "fixed_ips": [{"ip_address": "10.0.0.1"}],
    "binding:host_id": "host-a",
}


def another(number: int) -> dict[str, Any]:
    return {
        "mac_address": f"fa:16:3e:00:00:{number:02x}",
        "fixed_ips": [{"ip_address": f"10.0.0.{number}"}],
        "binding:host_id": "host-a",
    }


@pytest.fixture
def port(server: Server, agent: FakeAgent, network: str, group: str) -> dict[str, Any]:
    """The body of a port that exists and is wired."""
    body = {**BODY, "network_id": network, "security_groups": [group]}
    server.put("ports", PORT, **body)
    agent.wire(PORT)
    server.new_casts()
    return body


@pytest.mark.usefixtures("agent")
def test_a_new_port_is_down_and_waits_for_its_agent_to_look(server: Server, network: str) -> None:
    shown = server.put("ports", PORT, **BODY, network_id=network)
    assert shown == {
        "id": PORT,
        "name": "",
        "network_id": network,
        "mac_address": "fa:16:3e:00:00:01",
        "fixed_ips": [{"ip_address": "10.0.0.1"}],
        "allowed_address_pairs": [],
        "security_groups": [],
        "port_security_enabled": True,
        "admin_state_up": True,
        "device_owner": "",
        "binding:host_id": "host-a",
        "status": "DOWN",
        "sync_state": "SYNCING",
        "sync_revision": None,
        "sync_since": shown["updated_at"],
        "sync_reason": None,
        "reason": shown["reason"],
        "revision_number": 1,
        "updated_at": shown["updated_at"],
    }
    assert server.new_casts() == [("host-a", "ports_changed", frozenset({PORT}))]
    assert server.show("ports", PORT) == shown


def test_created_is_201_and_replaced_is_200(server: Server, network: str) -> None:
    body = {**BODY, "network_id": network}
    assert server.try_put("ports", PORT, **body).status_code == 201
    assert server.try_put("ports", PORT, **body).status_code == 200


@pytest.mark.parametrize("collection", ["networks", "security-groups", "address-groups", "ports"])
def test_what_get_shows_can_be_put_again_and_changes_nothing(
    server: Server, port: dict[str, Any], group: str, collection: str
) -> None:
    server.put("address-groups", new_id(), addresses=["10.0.0.0/8", "2001:db8::/64"])
    server.put("ports", PORT, **port, allowed_address_pairs=[{"ip_address": "10.1.0.0/16"}])
    server.put(
        "security-groups",
        group,
        name="web",
        security_group_rules=[
            {"direction": "ingress", "protocol": "tcp", "port_range_min": 1, "port_range_max": 2},
            {"direction": "egress", "ethertype": "IPv6", "protocol": "ipv6-icmp"},
            {
                "direction": "egress",
                "protocol": "udp",
                "source_port_range_min": 53,
                "source_port_range_max": 54,
            },
            {"direction": "ingress", "protocol": 200, "remote_ip_prefix": "10.0.0.0/8"},
            {"direction": "ingress", "remote_group_id": group},
        ],
    )
    server.new_casts()
    (shown,) = server.find(collection)
    read_only = bodies.READ_ONLY[bodies.Port]
    body = {name: value for name, value in shown.items() if name not in read_only}
    assert server.put(collection, shown["id"], **body) == shown
    assert server.new_casts() == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mac_address", "fa:16:3e:00:00:02"),
        ("fixed_ips", []),
        ("allowed_address_pairs", [{"ip_address": "10.9.0.0/16"}]),
        ("security_groups", []),
        ("port_security_enabled", False),
        ("admin_state_up", False),
        ("device_owner", "network:dhcp"),
    ],
)
def test_a_change_that_wiring_depends_on_raises_the_revision(
    server: Server, port: dict[str, Any], field: str, value: object
) -> None:
    shown = server.put("ports", PORT, **{**port, field: value})
    assert shown[field] != port.get(field)
    assert (shown["revision_number"], shown["sync_state"]) == (2, "SYNCING")
    assert shown["status"] == "ACTIVE"  # it still passes what was proven
    assert ("host-a", "ports_changed", frozenset({PORT})) in server.new_casts()


def test_a_new_name_is_no_new_desired_state(server: Server, port: dict[str, Any]) -> None:
    shown = server.put("ports", PORT, **port, name="db-1")
    assert (shown["name"], shown["revision_number"]) == ("db-1", 1)
    assert server.state(PORT) == ("ACTIVE", "IN_SYNC")
    assert server.new_casts() == []


def test_a_network_that_differs_on_the_wire_rewires_its_ports(
    server: Server, port: dict[str, Any], network: str
) -> None:
    server.put("networks", network, network_type="local", name="blue")
    assert server.new_casts() == []
    server.put("networks", network, network_type="local", name="blue", mtu=1400)
    assert server.show("ports", PORT)["revision_number"] == 2
    assert server.state(PORT) == ("ACTIVE", "SYNCING")
    assert server.new_casts() == [("host-a", "ports_changed", frozenset({PORT}))]


def test_port_bound_to_another_host_starts_again(server: Server, port: dict[str, Any]) -> None:
    FakeAgent(server, "host-b")
    server.put("ports", PORT, **{**port, "binding:host_id": "host-b"})
    assert server.state(PORT) == ("DOWN", "SYNCING")
    assert sorted(server.new_casts()) == [
        ("host-a", "ports_changed", frozenset({PORT})),
        ("host-b", "ports_changed", frozenset({PORT})),
    ]
    assert FakeAgent(server, "host-a").specs().ports == {}
    assert set(FakeAgent(server, "host-b").specs().ports) == {PORT}


def test_report_of_the_old_host_does_not_prove_the_new_binding(
    server: Server, agent: FakeAgent, port: dict[str, Any]
) -> None:
    late = agent.report(PORT, sequence=50)
    server.put("ports", PORT, **{**port, "binding:host_id": "host-b"})
    assert "bound to host-b" in agent.send(late).rejected[late.id]
    server.put("ports", PORT, **port)
    assert agent.send(late).accepted == [late.id]
    assert server.show("ports", PORT)["status"] == "DOWN"


def test_invariant_10_a_late_report_of_the_old_host_is_refused_and_is_no_fault(
    server: Server, agent: FakeAgent, port: dict[str, Any]
) -> None:
    FakeAgent(server, "host-b")
    agent.send(agent.report(PORT))
    late = agent.report(PORT)
    server.put("ports", PORT, **{**port, "binding:host_id": "host-b"})
    reason = agent.send(late).rejected[late.id]
    assert reason == f"{MOVED_AWAY} port {PORT} is bound to host-b, not to host-a"
    assert server.state(PORT) == ("DOWN", "SYNCING")


def test_invariant_10_a_host_that_never_had_the_port_is_at_fault(
    server: Server, agent: FakeAgent, port: dict[str, Any]
) -> None:
    agent.send(agent.report(PORT))
    server.put("ports", PORT, **{**port, "binding:host_id": "host-b"})
    stranger = FakeAgent(server, "host-c")
    lie = flow_report(host="host-c", resource_id=PORT)
    assert not is_no_fault(stranger.send(lie).rejected[lie.id])


def test_unbound_port_reaches_no_agent(server: Server, network: str) -> None:
    body = {**BODY, "network_id": network}
    shown = server.put("ports", PORT, **{**body, "binding:host_id": ""})
    assert shown["binding:host_id"] is None
    assert server.new_casts() == []
    answer = server.rest.simulate_post(f"/ports/{PORT}/resync")
    assert (answer.status_code, answer.json["error"]["field"]) == (409, "binding:host_id")


def test_port_created_again_is_not_proven_by_old_reports(
    server: Server, agent: FakeAgent, port: dict[str, Any]
) -> None:
    late = agent.report(PORT, sequence=50)
    assert server.delete("ports", PORT).status_code == 204
    assert agent.send(late).rejected[late.id] == f"there is no port {PORT}"
    assert server.put("ports", PORT, **port)["revision_number"] == 2
    agent.send(agent.report(PORT, sequence=51, revision=1))
    assert server.state(PORT) == ("DOWN", "SYNCING")


# Uniqueness and use.


def test_a_mac_address_comes_once_on_a_network(
    server: Server, port: dict[str, Any], network: str
) -> None:
    body = {**another(2), "mac_address": port["mac_address"]}
    answer = server.try_put("ports", new_id(), **body, network_id=network)
    assert (answer.status_code, answer.json["error"]["field"]) == (409, "mac_address")
    assert PORT in answer.json["error"]["message"]
    elsewhere = new_id()
    server.put("networks", elsewhere, network_type="local")
    server.put("ports", new_id(), **body, network_id=elsewhere)


def test_an_ip_address_comes_once_on_a_network(
    server: Server, port: dict[str, Any], network: str
) -> None:
    body = {**another(2), "fixed_ips": [{"ip_address": "10.0.0.9"}, {"ip_address": "10.0.0.1"}]}
    answer = server.try_put("ports", new_id(), **body, network_id=network)
    assert answer.status_code == 409
    assert answer.json["error"]["field"] == "fixed_ips.1.ip_address"


def test_a_segment_belongs_to_one_network(server: Server) -> None:
    vlan = {"network_type": "vlan", "physical_network": "p", "segmentation_id": 7}
    first = new_id()
    server.put("networks", first, **vlan)
    answer = server.try_put("networks", new_id(), **vlan)
    assert (answer.status_code, answer.json["error"]["field"]) == (409, "segmentation_id")
    assert first in answer.json["error"]["message"]


def test_what_is_in_use_is_not_deleted_and_the_user_is_named(
    server: Server, port: dict[str, Any], network: str, group: str
) -> None:
    addresses, user = new_id(), new_id()
    server.put("address-groups", addresses, addresses=["10.0.0.0/8"])
    rules = [
        {"direction": "ingress", "remote_address_group_id": addresses},
        {"direction": "ingress", "remote_group_id": group},
        {"direction": "egress", "remote_group_id": user},
    ]
    server.put("security-groups", user)
    server.put("security-groups", user, security_group_rules=rules)
    for collection, resource_id, needed_by in [
        ("networks", network, PORT),
        ("security-groups", group, PORT),
        ("address-groups", addresses, user),
    ]:
        answer = server.delete(collection, resource_id)
        assert answer.status_code == 409
        assert needed_by in answer.json["error"]["message"]
    assert server.delete("ports", PORT).status_code == 204
    assert user in server.delete("security-groups", group).json["error"]["message"]
    for collection, resource_id in [
        ("security-groups", user),  # a rule that refers to its own group is no user
        ("security-groups", group),
        ("address-groups", addresses),
        ("networks", network),
    ]:
        assert server.delete(collection, resource_id).status_code == 204
        assert server.rest.simulate_get(f"/{collection}/{resource_id}").status_code == 404


# Security groups: what a port depends on raises its group's revision.


def allow_from(group_id: str) -> list[dict[str, Any]]:
    return [{"direction": "ingress", "remote_group_id": group_id}]


def revision(server: Server, group_id: str) -> int:
    return int(server.show("security-groups", group_id)["revision_number"])


def test_a_port_has_stateful_or_stateless_groups_but_not_both(
    server: Server, port: dict[str, Any], group: str
) -> None:
    stateless = new_id()
    server.put("security-groups", stateless, stateful=False)
    refused = server.try_put("ports", PORT, **{**port, "security_groups": [group, stateless]})
    assert refused.status_code == 409
    assert refused.json["error"]["field"] == "security_groups"
    assert f"{stateless} is stateless" in refused.json["error"]["message"]

    server.put("security-groups", stateless)
    server.put("ports", PORT, **{**port, "security_groups": [group, stateless]})
    refused = server.try_put("security-groups", stateless, stateful=False)
    assert refused.status_code == 409
    assert refused.json["error"]["field"] == "stateful"
    assert group in refused.json["error"]["message"]

    server.put("ports", PORT, **{**port, "security_groups": [stateless]})
    server.put("security-groups", stateless, stateful=False)


def test_new_rules_make_the_ports_of_the_group_sync(
    server: Server, port: dict[str, Any], group: str
) -> None:
    server.put("security-groups", group, name="renamed")
    assert revision(server, group) == 1
    server.put("security-groups", group, security_group_rules=[{"direction": "egress"}])
    assert revision(server, group) == 2
    assert server.state(PORT) == ("ACTIVE", "SYNCING")
    assert server.show("ports", PORT)["revision_number"] == 1
    assert server.new_casts() == [("host-a", "security_groups_changed", frozenset({group}))]


def test_added_changed_or_removed_member_changes_the_groups_that_admit_it(
    server: Server, agent: FakeAgent, port: dict[str, Any], network: str, group: str
) -> None:
    clients, client = new_id(), new_id()
    server.put("security-groups", clients)
    server.put("security-groups", group, security_group_rules=allow_from(clients))
    member = {**another(2), "network_id": network, "security_groups": [clients]}
    steps = [
        ("comes", lambda: server.put("ports", client, **member)),
        ("moves", lambda: server.put("ports", client, **{**member, **another(3)})),
        (
            "gets a further address",
            lambda: server.put(
                "ports", client, **member, allowed_address_pairs=[{"ip_address": "10.7.0.0/16"}]
            ),
        ),
        ("goes", lambda: server.delete("ports", client)),
    ]
    for expected, (what, step) in enumerate(steps, start=3):
        agent.wire(PORT)
        assert server.state(PORT) == ("ACTIVE", "IN_SYNC"), what
        server.new_casts()
        step()
        assert revision(server, group) == expected, what
        assert server.state(PORT) == ("ACTIVE", "SYNCING"), what
        changed = frozenset({group, clients})
        assert ("host-a", "security_groups_changed", changed) in server.new_casts(), what
    assert revision(server, clients) == 1  # no port in it depends on its own members


def test_member_with_the_same_addresses_changes_no_group(
    server: Server, port: dict[str, Any], network: str, group: str
) -> None:
    clients, client = new_id(), new_id()
    server.put("security-groups", clients)
    server.put("security-groups", group, security_group_rules=allow_from(clients))
    member = {**another(2), "network_id": network, "security_groups": [clients]}
    server.put("ports", client, **member)
    before = revision(server, group)
    server.put("ports", client, **member, admin_state_up=False)
    assert revision(server, group) == before


def test_addresses_of_a_group_concern_the_ports_whose_rules_name_it(
    server: Server, agent: FakeAgent, port: dict[str, Any], group: str
) -> None:
    addresses = new_id()
    server.put("address-groups", addresses, addresses=["10.0.0.0/8"])
    rules = [{"direction": "ingress", "remote_address_group_id": addresses}]
    server.put("security-groups", group, security_group_rules=rules)
    agent.wire(PORT)
    server.new_casts()
    server.put("address-groups", addresses, addresses=["10.0.0.0/8"], name="offices")
    assert server.new_casts() == []
    server.put("address-groups", addresses, addresses=["10.0.0.0/9"])
    assert server.state(PORT) == ("ACTIVE", "SYNCING")
    changed = frozenset({group, addresses})
    assert server.new_casts() == [("host-a", "security_groups_changed", changed)]


def test_a_port_without_port_security_does_not_depend_on_groups(
    server: Server, agent: FakeAgent, port: dict[str, Any], group: str
) -> None:
    server.put("ports", PORT, **port, port_security_enabled=False)
    agent.wire(PORT)
    server.new_casts()
    server.put("security-groups", group, security_group_rules=[{"direction": "egress"}])
    assert server.state(PORT) == ("ACTIVE", "IN_SYNC")
    assert server.new_casts() == []


def test_hosts_of_absent_ports_also_receive_a_change_of_their_group(
    server: Server, port: dict[str, Any], network: str, group: str
) -> None:
    body = {**another(2), "network_id": network, "security_groups": [group]}
    absent, other = new_id(), FakeAgent(server, "host-b")
    server.put("ports", absent, **{**body, "binding:host_id": "host-b"})
    other.send(other.report(absent, FlowName.UNWIRE))
    assert server.state(absent) == ("DOWN", "ABSENT")
    server.new_casts()
    server.put("security-groups", group, security_group_rules=[{"direction": "egress"}])
    assert {host for host, _, _ in server.new_casts()} == {"host-a", "host-b"}
    assert server.state(absent) == ("DOWN", "ABSENT")


# When the bus fails.


def test_failed_cast_is_counted_repeated_and_fails_no_request(
    server: Server, port: dict[str, Any]
) -> None:
    server.recorder.failure = ConnectionError("no bus")
    assert server.try_put("ports", PORT, **{**port, **another(4)}).status_code == 200
    assert server.new_casts() == []
    assert b'agent_flows_casts_failed_total{kind="ports"}' in server.metrics.text()
    assert server.state(PORT) == ("ACTIVE", "SYNCING")  # and the clock of report_timeout runs
    server.recorder.failure = None
    server.caster.retry()  # as every sweep does
    assert ("host-a", "ports_changed", frozenset({PORT})) in server.new_casts()


def test_resync_of_a_port_reaches_its_agent(server: Server, port: dict[str, Any]) -> None:
    assert server.rest.simulate_post(f"/ports/{PORT}/resync").status_code == 202
    assert server.new_casts() == [("host-a", "resync", frozenset({PORT}))]
    server.recorder.failure = ConnectionError("no bus")
    answer = server.rest.simulate_post(f"/ports/{PORT}/resync")
    assert (answer.status_code, answer.json["error"]["type"]) == (503, "Unavailable")
