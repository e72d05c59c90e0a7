"""Many objects in one request are written all or not at all, with as few statements as one."""

import json
from typing import Any

import falcon.testing
import pytest

from lab.model import new_id
from lab.server_parts import FakeAgent, Server
from lab.statements import statements


@pytest.fixture
def network(server: Server) -> str:
    """A network that exists."""
    network_id = new_id()
    server.put("networks", network_id, network_type="local")
    return network_id


def post(server: Server, path: str, **body: object) -> falcon.testing.Result:
    return server.rest.simulate_post(path, body=json.dumps(body))


def error(answer: falcon.testing.Result) -> tuple[int, str | None]:
    """The status of a refusal, and the field that it names."""
    return answer.status_code, answer.json["error"]["field"]


def port(number: int, network: str, *groups: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": new_id(),
        "network_id": network,
        "mac_address": f"fa:16:3e:00:{number >> 8:02x}:{number & 255:02x}",
        "fixed_ips": [{"ip_address": f"10.0.{number >> 8}.{number & 255}"}],
        "security_groups": list(groups),
        "binding:host_id": f"host-{'ab'[number % 2]}",
        **fields,
    }


def remote(group: str) -> list[dict[str, Any]]:
    return [{"direction": "ingress", "remote_group_id": group}]


def test_a_document_of_all_kinds_is_written_whole_whatever_refers_to_what(server: Server) -> None:
    network, one, other = new_id(), new_id(), new_id()
    addresses = new_id()
    rule = {"direction": "egress", "remote_address_group_id": addresses}
    made = port(1, network, one, other)
    document = {
        "ports": [made],
        "security_groups": [
            {"id": one, "security_group_rules": [*remote(other), rule]},
            {"id": other, "security_group_rules": remote(one)},
        ],
        "address_groups": [{"id": addresses, "addresses": ["192.0.2.0/24"]}],
        "networks": [{"id": network, "network_type": "local"}],
    }
    answer = post(server, "/documents", **document)
    assert answer.status_code == 200
    assert {kind: ids["created"] for kind, ids in answer.json["document"].items()} == {
        "networks": [network],
        "address_groups": [addresses],
        "security_groups": [one, other],
        "ports": [made["id"]],
    }
    assert server.show("ports", made["id"])["security_groups"] == [one, other]
    shown = server.show("security-groups", one)["security_group_rules"]
    assert [each["remote_group_id"] for each in shown] == [other, None]


def test_a_document_that_is_so_already_raises_no_revision_and_casts_nothing(
    server: Server, agent: FakeAgent, group: str, network: str
) -> None:
    document = {
        "networks": [{"id": network, "network_type": "local"}],
        "security_groups": [{"id": group, "security_group_rules": remote(group)}],
        "ports": [port(number, network, group) for number in range(5)],
    }
    post(server, "/documents", **document)
    before = server.find("ports"), server.find("security-groups")
    server.new_casts()
    answer = post(server, "/documents", **document)
    assert all(ids["created"] == ids["changed"] == [] for ids in answer.json["document"].values())
    assert (server.find("ports"), server.find("security-groups")) == before
    assert server.new_casts() == []


def test_one_wrong_object_is_named_by_its_path_and_nothing_of_the_request_is_written(
    server: Server, group: str, network: str
) -> None:
    there = port(0, network, group)
    server.put("ports", there["id"], **{k: v for k, v in there.items() if k != "id"})
    before = server.find("ports"), server.find("security-groups"), server.find("networks")
    server.new_casts()
    for wrong, status, field in (
        ({"mac_address": "none"}, 400, "ports.1.mac_address"),
        ({"network_id": new_id()}, 400, "ports.1.network_id"),
        ({"security_groups": [group, new_id()]}, 400, "ports.1.security_groups.1"),
        ({"mac_address": there["mac_address"]}, 409, "ports.1.mac_address"),
        ({"fixed_ips": there["fixed_ips"]}, 409, "ports.1.fixed_ips.0.ip_address"),
        ({"status": "ACTIVE"}, 400, "ports.1.status"),
    ):
        ports = [port(1, network, group), port(2, network, group, **wrong)]
        another = {"id": new_id(), "network_type": "local"}
        answer = post(server, "/documents", networks=[another], ports=ports)
        assert error(answer) == (status, field)
    group_with_rule = {"id": new_id(), "security_group_rules": remote(new_id())}
    answer = post(server, "/security-groups", security_groups=[{"id": group}, group_with_rule])
    assert error(answer) == (400, "security_groups.1.security_group_rules.0.remote_group_id")
    after = server.find("ports"), server.find("security-groups"), server.find("networks")
    assert after == before
    assert server.new_casts() == []


def test_two_objects_of_a_request_that_exclude_each_other_are_refused(
    server: Server, network: str
) -> None:
    first = port(1, network)
    same_mac = port(2, network, mac_address=first["mac_address"])
    same_address = port(2, network, fixed_ips=first["fixed_ips"])
    for second, status, field in (
        (same_mac, 409, "ports.1.mac_address"),
        (same_address, 409, "ports.1.fixed_ips.0.ip_address"),
        (first, 400, "ports.1.id"),
    ):
        assert error(post(server, "/ports", ports=[first, second])) == (status, field)
    vlan = {"network_type": "vlan", "physical_network": "physnet1", "segmentation_id": 5}
    networks = [{"id": new_id(), **vlan}, {"id": new_id(), **vlan}]
    answer = post(server, "/networks", networks=networks)
    assert error(answer) == (409, "networks.1.segmentation_id")


def test_objects_of_a_request_may_take_from_each_other_what_only_one_can_have(
    server: Server, network: str
) -> None:
    one, other = port(1, network), port(2, network)
    vlans: list[dict[str, Any]] = [
        {
            "id": new_id(),
            "network_type": "vlan",
            "physical_network": "physnet1",
            "segmentation_id": number,
        }
        for number in (5, 6)
    ]
    assert post(server, "/documents", networks=vlans, ports=[one, other]).status_code == 200
    for name in ("mac_address", "fixed_ips"):
        one[name], other[name] = other[name], one[name]
    vlans[0]["segmentation_id"], vlans[1]["segmentation_id"] = 6, 5
    answer = post(server, "/documents", networks=vlans, ports=[one, other])
    assert answer.json["document"]["ports"]["changed"] == [one["id"], other["id"]]
    for wanted in (one, other):
        shown = server.show("ports", wanted["id"])
        assert shown["mac_address"] == wanted["mac_address"]
        assert shown["fixed_ips"] == wanted["fixed_ips"]
    assert [server.show("networks", each["id"])["segmentation_id"] for each in vlans] == [6, 5]


def test_a_host_gets_one_cast_for_all_its_ports_and_one_for_the_groups(
    server: Server, agent: FakeAgent, group: str, network: str
) -> None:
    server.put("security-groups", group, security_group_rules=remote(group))
    server.new_casts()
    ports = [port(number, network, group) for number in range(6)]
    answer = post(server, "/ports", ports=ports)
    assert answer.status_code == 201
    assert [shown["id"] for shown in answer.json["ports"]] == [each["id"] for each in ports]
    at = {host: {p["id"] for p in ports if p["binding:host_id"] == host} for host in ("host-a",)}
    casts = server.new_casts()
    assert sorted((host, what) for host, what, _ in casts) == [
        (host, what)
        for host in ("host-a", "host-b")
        for what in ("ports_changed", "security_groups_changed")
    ]
    assert ("host-a", "ports_changed", frozenset(at["host-a"])) in casts
    states = {shown["binding:host_id"]: shown["sync_state"] for shown in server.find("ports")}
    assert states == {"host-a": "SYNCING", "host-b": "UNKNOWN"}
    agent.wire(*at["host-a"])
    assert {server.state(each)[0] for each in at["host-a"]} == {"ACTIVE"}


def test_fifty_ports_take_as_many_statements_as_two(
    server: Server, agent: FakeAgent, group: str, network: str
) -> None:
    server.put("security-groups", group, security_group_rules=remote(group))
    counts = []
    post(server, "/ports", ports=[port(number, network, group) for number in (998, 999)])
    for numbers in (range(2), range(2, 52)):
        with statements(server.database.engine) as sent:
            answer = post(server, "/ports", ports=[port(n, network, group) for n in numbers])
        assert answer.status_code == 201
        counts.append(len(sent))
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"ports": {}}, 400, "ports"),
        ({"ports": ["port"]}, 400, "ports.0"),
        ({"ports": [{"name": "web"}]}, 400, "ports.0.id"),
        ({"ports": [{"id": "WEB"}]}, 400, "ports.0.id"),
        ({"routers": []}, 400, "routers"),
        ({"ports": [{}] * 5001}, 413, None),
    ],
)
def test_a_list_in_another_form_or_too_long_is_refused(
    server: Server, body: dict[str, object], status: int, field: str | None
) -> None:
    for path in ("/ports", "/documents"):
        assert error(post(server, path, **body)) == (status, field)


def test_a_group_may_not_become_of_another_kind_than_its_ports_other_groups(
    server: Server, network: str
) -> None:
    groups = [{"id": new_id(), "stateful": True} for _ in range(2)]
    ports = [port(1, network, *(str(group["id"]) for group in groups))]
    assert post(server, "/documents", security_groups=groups, ports=ports).status_code == 200
    groups[1]["stateful"] = False
    answer = post(server, "/security-groups", security_groups=groups)
    assert error(answer) == (409, "security_groups.1.stateful")
    # Both at once may.
    groups[0]["stateful"] = False
    assert post(server, "/security-groups", security_groups=groups).status_code == 200
