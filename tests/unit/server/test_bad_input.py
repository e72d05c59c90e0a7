"""Bad input is refused with a 4xx that names the field, and nothing is stored."""

import json
from typing import Any

import pytest

from lab.model import new_id
from lab.server_parts import Server, running

ID, OTHER = new_id(), new_id()
MAC = "fa:16:3e:00:00:01"


def refusal(answer: Any, status: int = 400) -> tuple[str, str]:
    """Field and message of an error answer."""
    assert answer.status_code == status, answer.text
    assert set(answer.json) == {"error"}
    assert set(answer.json["error"]) == {"type", "message", "field"}
    return answer.json["error"]["field"], answer.json["error"]["message"]


def rule(**fields: Any) -> dict[str, Any]:
    return {"security_group_rules": [{"direction": "ingress", **fields}]}


@pytest.mark.parametrize(
    ("collection", "fields", "field"),
    [
        ("networks", {"network_type": "local", "colour": "red"}, "colour"),
        ("networks", {"network_type": "vxlan"}, "network_type"),
        ("networks", {"network_type": "geneve", "segmentation_id": 70000}, "network_type"),
        ("networks", {"network_type": "vlan", "physical_network": "p"}, "segmentation_id"),
        ("networks", {"network_type": "flat"}, "physical_network"),
        ("networks", {"network_type": "local", "mtu": "1500"}, "mtu"),
        ("networks", {"network_type": "local", "mtu": True}, "mtu"),
        ("networks", {"network_type": "local", "name": 7}, "name"),
        ("networks", {"network_type": "local", "name": "a\x00b"}, "name"),
        ("networks", {"network_type": "local", "name": "\ud800"}, "name"),
        ("networks", {"network_type": "local", "id": OTHER}, "id"),
        ("networks", {}, "network_type"),
        ("address-groups", {"addresses": ["10.0.0.1/24"]}, "addresses.0"),
        ("address-groups", {"addresses": ["10.0.0.0/24", "10.0.0.0/24"]}, "addresses.1"),
        ("address-groups", {"addresses": "10.0.0.0/24"}, "addresses"),
        ("security-groups", {"revision_number": 3}, "revision_number"),
        ("security-groups", {"stateful": "yes"}, "stateful"),
        ("security-groups", rule(protocol="tpc"), "security_group_rules.0.protocol"),
        ("security-groups", rule(protocol=256), "security_group_rules.0.protocol"),
        (
            "security-groups",
            rule(protocol="tcp", port_range_min=90, port_range_max=80),
            "security_group_rules.0.port_range_max",
        ),
        (
            "security-groups",
            rule(protocol="tcp", port_range_min=0, port_range_max=80),
            "security_group_rules.0.port_range_min",
        ),
        (
            "security-groups",
            rule(protocol="tcp", port_range_min=1, port_range_max=65536),
            "security_group_rules.0.port_range_max",
        ),
        (
            "security-groups",
            rule(protocol="udp", source_port_range_min=1),
            "security_group_rules.0.source_port_range_max",
        ),
        ("security-groups", rule(port_range_min=1), "security_group_rules.0.port_range_min"),
        (
            "security-groups",
            rule(remote_ip_prefix="10.0.0.1/8"),
            "security_group_rules.0.remote_ip_prefix",
        ),
        (
            "security-groups",
            rule(remote_group_id=OTHER),
            "security_group_rules.0.remote_group_id",
        ),
        (
            "security-groups",
            rule(remote_address_group_id=OTHER),
            "security_group_rules.0.remote_address_group_id",
        ),
        (
            "security-groups",
            {"security_group_rules": [{"direction": "ingress"}, {"direction": "ingress"}]},
            "security_group_rules.1",
        ),
        ("ports", {"mac_address": MAC}, "network_id"),
        ("ports", {"network_id": OTHER, "mac_address": MAC}, "network_id"),
        ("ports", {"network_id": OTHER, "mac_address": "01:00:5e:00:00:01"}, "mac_address"),
        ("ports", {"network_id": OTHER, "mac_address": MAC, "status": "ACTIVE"}, "status"),
        ("ports", {"network_id": OTHER, "mac_address": MAC, "sync_state": "x"}, "sync_state"),
        (
            "ports",
            {"network_id": OTHER, "mac_address": MAC, "revision_number": 1},
            "revision_number",
        ),
        ("ports", {"network_id": OTHER, "mac_address": MAC, "updated_at": ""}, "updated_at"),
        ("ports", {"network_id": OTHER, "mac_address": MAC, "id": OTHER}, "id"),
        ("ports", {"network_id": OTHER, "mac_address": MAC, "host": "a"}, "host"),
        (
            "ports",
            {"network_id": OTHER, "mac_address": MAC, "binding:host_id": "a b"},
            "binding:host_id",
        ),
        (
            "ports",
            {"network_id": OTHER, "mac_address": MAC, "security_groups": [OTHER, OTHER]},
            "security_groups.1",
        ),
        (
            "ports",
            {"network_id": OTHER, "mac_address": MAC, "fixed_ips": [{"ip_address": "10.0.0.256"}]},
            "fixed_ips.0.ip_address",
        ),
        (
            "ports",
            {
                "network_id": OTHER,
                "mac_address": MAC,
                "fixed_ips": [{"ip_address": "10.0.0.1"}] * 2,
            },
            "fixed_ips.1",
        ),
        (
            "ports",
            {
                "network_id": OTHER,
                "mac_address": MAC,
                "allowed_address_pairs": [{"ip_address": "10.0.0.1/8"}],
            },
            "allowed_address_pairs.0.ip_address",
        ),
    ],
)
def test_invalid_body_is_refused_with_the_field(
    server: Server, collection: str, fields: dict[str, Any], field: str
) -> None:
    named, message = refusal(server.try_put(collection, ID, **fields))
    assert named == field
    assert field in message
    assert server.find(collection) == []


def test_an_unknown_security_group_of_a_port_is_named(server: Server, network: str) -> None:
    answer = server.try_put(
        "ports", ID, network_id=network, mac_address=MAC, security_groups=[OTHER]
    )
    assert refusal(answer)[0] == "security_groups.0"
    assert server.find("ports") == []


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b"null", None),
        (b'{"network": {"network_type": "local", "mtu": NaN}}', None),
        (b'{"network": {"network_type": "local"}} x', None),
        (b"\xff\xfe", None),
        (b"[" * 100_000, None),
        (b"1" * 5000, None),
        (b'{"port": {}}', "port"),
        (b"{}", "network"),
        (b'{"network": []}', None),
        (b'{"network": {"network_type": "local", "network_type": "flat"}}', "network_type"),
        (b'{"network": {}, "network": {}}', "network"),
    ],
)
def test_body_of_another_form_is_refused(server: Server, raw: bytes, field: str | None) -> None:
    answer = server.rest.simulate_put(f"/networks/{ID}", body=raw)
    assert refusal(answer)[0] == field
    assert server.find("networks") == []


def test_a_10_mib_body_is_refused_before_it_is_read(server: Server) -> None:
    raw = json.dumps({"network": {"name": "x" * 10 * 1024 * 1024}}).encode()
    answer = server.rest.simulate_put(f"/networks/{ID}", body=raw)
    assert "4194304 bytes" in refusal(answer, 413)[1]


def test_limit_of_a_body_is_an_option(url: str) -> None:
    with running(url, api={"max_body_bytes": 1024}) as server:
        answer = server.try_put("networks", ID, network_type="local", name="x" * 1024)
        assert "1024 bytes" in refusal(answer, 413)[1]


@pytest.mark.parametrize("identity", ["1", ID.upper(), "a" * 36])
def test_an_id_is_a_uuid_in_lower_case(server: Server, identity: str) -> None:
    assert refusal(server.try_put("networks", identity, network_type="local"))[0] == "id"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("colour=red", "colour"),
        ("task_state=BROKEN", "task_state"),
        ("flow=dance", "flow"),
        ("limit=0", "limit"),
        ("limit=-1", "limit"),
        ("limit=many", "limit"),
        ("limit=", "limit"),
        ("sort_key=error", "sort_key"),
        ("sort_key=name&sort_dir=up", "sort_dir"),
        ("sort_dir=asc", "sort_dir"),
        ("marker=unknown", "marker"),
        (f"marker={ID}.0", "marker"),
        (f"marker={ID}.99999999999999999999", "marker"),
        ("fields=id&fields=colour", "fields"),
        ("host=%00", "host"),
        ("host=" + "a" * 256, "host"),
    ],
)
def test_invalid_query_is_refused_with_the_parameter(
    server: Server, query: str, field: str
) -> None:
    answer = server.rest.simulate_get("/tasks", query_string=query)
    assert refusal(answer)[0] == field


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", f"/ports/{ID}", 404),
        ("GET", f"/tasks/{ID}.0", 404),
        ("GET", "/tasks/x", 404),
        ("GET", "/ports/%00", 404),
        ("GET", "/agents/" + "a" * 300, 404),
        ("GET", "/agents/unknown", 404),
        ("DELETE", f"/ports/{ID}", 404),
        ("DELETE", f"/networks/{ID}", 404),
        ("DELETE", f"/security-groups/{ID}", 404),
        ("DELETE", f"/address-groups/{ID}", 404),
        ("POST", f"/ports/{ID}/resync", 404),
        ("POST", "/tasks", 405),
        ("PUT", "/tasks/x", 405),
    ],
)
def test_every_error_has_the_same_form(server: Server, method: str, path: str, status: int) -> None:
    refusal(server.rest.simulate_request(method, path), status)
