"""agent-flows apply: a document becomes desired state, and its errors are reported."""

import copy
import io
import json
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from agent_flows.cli.client import RestClient
from tests.unit.cli.stage import CLOUD, GROUP, NETWORK, PORT, Run, Server, identity


def write(path: Path, document: object) -> str:
    path.write_text(yaml.safe_dump(document))
    return str(path)


def test_a_yaml_document_is_applied_in_the_order_of_references(run: Run, tmp_path: Path) -> None:
    backwards = dict(reversed(CLOUD.items()))
    ran = run("apply", write(tmp_path / "cloud.yaml", backwards), "-f", "value")
    assert ran.code == 0
    assert [line.split() for line in ran.out.splitlines()] == [
        ["networks", NETWORK, "applied"],
        ["security_groups", GROUP, "applied"],
        ["ports", PORT, "applied"],
    ]
    assert run("port", "show", PORT).code == 0


def test_applying_twice_changes_nothing(run: Run, tmp_path: Path) -> None:
    file = write(tmp_path / "cloud.yaml", CLOUD)
    assert run("apply", file).code == 0
    before = run("port", "show", PORT, "-f", "json").json["revision_number"]
    assert run("apply", file).code == 0
    assert run("port", "show", PORT, "-f", "json").json["revision_number"] == before


def test_a_document_is_read_from_standard_input(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(CLOUD)))
    assert run("apply", "-").code == 0


def test_a_refused_object_has_a_reason_and_does_not_stop_the_others(
    run: Run, tmp_path: Path
) -> None:
    cloud: dict[str, Any] = copy.deepcopy(CLOUD)
    cloud["security_groups"][0]["security_group_rules"][0]["protocol"] = "tpc"
    cloud["ports"][0]["security_groups"] = []
    ran = run("apply", write(tmp_path / "cloud.yaml", cloud), "-f", "json")
    assert ran.code == 1
    results = {row["id"]: row["result"] for row in ran.json}
    assert results[PORT] == results[NETWORK] == "applied"
    assert "security_group_rules.0.protocol" in results[GROUP]
    assert "tpc" in results[GROUP]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[1, 2]", "object"),
        ("routers: []", "routers"),
        ("ports: {}", "ports"),
        ("ports: [{name: web1}]", "ports.0.id"),
        ("ports: [web1]", "ports.0.id"),
        ("ports: [", "YAML"),
    ],
)
def test_an_invalid_document_is_refused_before_anything_is_sent(
    run: Run, tmp_path: Path, text: str, named: str
) -> None:
    file = tmp_path / "cloud.yaml"
    file.write_text(
        f"networks: [{{id: {NETWORK}, network_type: local}}]\n" * (text[0] == "p") + text
    )
    ran = run("apply", str(file))
    assert ran.code == 2
    assert named in ran.err
    assert run("port", "list", "-f", "json").json == []


def test_a_missing_file_is_named_and_returns_2(run: Run) -> None:
    ran = run("apply", "/nonexistent/cloud.yaml")
    assert ran.code == 2
    assert "/nonexistent/cloud.yaml" in ran.err


def group(number: int, *remotes: int, **fields: Any) -> dict[str, Any]:
    rules = [
        {"direction": "ingress", "protocol": "tcp", "remote_group_id": identity(remote)}
        for remote in remotes
    ]
    return {"id": identity(number), "security_group_rules": rules, **fields}


def remotes(server: Server, number: int) -> list[str]:
    """Which groups the rules of a group on the server name."""
    shown = requests.get(f"{server.url}/security-groups/{identity(number)}", timeout=20).json()
    return [rule["remote_group_id"] for rule in shown["security_group"]["security_group_rules"]]


@pytest.mark.parametrize(
    "groups",
    [
        [group(11, 12), group(12, 11)],
        [group(12, 11), group(11, 12)],
        [group(11, 12), group(12, 13), group(13, 11)],
        [group(11, 11, 12), group(12, 12, 11), group(13, 11)],
        [group(11, 12), group(12, 13), group(13, 14), group(14)],
        [group(11, 12, 13), group(12, 11, 13), group(13, 11, 12)],
    ],
    ids=["two", "two backwards", "a circle of three", "with themselves", "a chain", "all of all"],
)
def test_groups_that_refer_to_each_other_are_applied_completely_and_only_once(
    run: Run, server: Server, tmp_path: Path, groups: list[dict[str, Any]]
) -> None:
    file = write(tmp_path / "cloud.yaml", {"security_groups": groups})
    ran = run("apply", file, "-f", "json")
    assert ran.code == 0
    assert [(row["id"], row["result"]) for row in ran.json] == [
        (group["id"], "applied") for group in groups
    ]
    before = listed(server)
    assert {group["id"]: group["security_group_rules"] for group in groups} == {
        group_id: [
            {name: rule[name] for name in ("direction", "protocol", "remote_group_id")}
            for rule in shown["security_group_rules"]
        ]
        for group_id, shown in before.items()
    }
    assert run("apply", file).code == 0
    assert listed(server) == before


def listed(server: Server) -> dict[str, Any]:
    answer = requests.get(f"{server.url}/security-groups", timeout=20).json()
    return {group["id"]: group for group in answer["security_groups"]}


def test_a_reference_to_a_missing_group_is_refused_by_name(
    run: Run, server: Server, tmp_path: Path
) -> None:
    groups = [group(11, 12), group(12, 11, 99), group(13)]
    ran = run("apply", write(tmp_path / "cloud.yaml", {"security_groups": groups}), "-f", "json")
    assert ran.code == 1
    results = {row["id"]: row["result"] for row in ran.json}
    assert "no such security group" in results[identity(12)]
    assert identity(99) in results[identity(12)]
    assert results[identity(11)].startswith("applied without 1 of its rules: ")
    assert identity(12) in results[identity(11)]
    assert results[identity(13)] == "applied"


def test_an_existing_group_in_a_circle_never_loses_a_rule(
    run: Run, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An existing group comes into a circle with a new one."""
    first = {"security_groups": [group(11), group(13, 11)]}
    assert run("apply", write(tmp_path / "first.yaml", first)).code == 0
    seen: list[tuple[str, list[str]]] = []
    put = RestClient.put

    def watched(self: RestClient, collection: str, resource_id: str, body: Any) -> Any:
        rules = [rule["remote_group_id"] for rule in body["security_group_rules"]]
        seen.append((resource_id, rules))
        return put(self, collection, resource_id, body)

    monkeypatch.setattr(RestClient, "put", watched)
    second = {"security_groups": [group(13, 11, 12), group(12, 13)]}
    assert run("apply", write(tmp_path / "second.yaml", second)).code == 0
    assert [rules for id_, rules in seen if id_ == identity(13)] == [[identity(11), identity(12)]]
    assert remotes(server, 13) == [identity(11), identity(12)]
    assert remotes(server, 12) == [identity(13)]


def test_a_document_with_one_id_twice_is_refused_before_anything_is_sent(
    run: Run, server: Server, tmp_path: Path
) -> None:
    groups = [group(11), group(12), group(11, 12)]
    ran = run("apply", write(tmp_path / "cloud.yaml", {"security_groups": groups}))
    assert ran.code == 2
    assert "security_groups.2.id" in ran.err
    assert listed(server) == {}
