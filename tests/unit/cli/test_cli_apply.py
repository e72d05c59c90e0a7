"""agent-flows apply: a document becomes desired state, and its errors are reported."""

import copy
import io
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from agent_flows.cli.client import RestClient
from agent_flows.cli.failure import CommandFailed
from tests.unit.cli.stage import CLOUD, GROUP, NETWORK, PORT, Run, Server, identity


def write(path: Path, document: object) -> str:
    path.write_text(yaml.safe_dump(document))
    return str(path)


def test_a_yaml_document_is_applied_in_the_order_of_references(run: Run, tmp_path: Path) -> None:
    backwards = dict(reversed(CLOUD.items()))
    ran = run("apply", write(tmp_path / "cloud.yaml", backwards), "-f", "value")
    assert ran.code == 0
    assert [line.split() for line in ran.out.splitlines()] == [
        ["networks", NETWORK, "created"],
        ["security_groups", GROUP, "created"],
        ["ports", PORT, "created"],
    ]
    assert run("port", "show", PORT).code == 0


def test_applying_twice_changes_nothing(run: Run, tmp_path: Path) -> None:
    file = write(tmp_path / "cloud.yaml", CLOUD)
    assert run("apply", file).code == 0
    before = run("port", "show", PORT, "-f", "json").json["revision_number"]
    again = run("apply", file, "-f", "json")
    assert {row["result"] for row in again.json} == {"unchanged"}
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
    assert results[PORT] == results[NETWORK] == "created"
    assert results[GROUP].startswith("security_group_rules.0.protocol: ")
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
    assert {row["id"]: row["result"] for row in ran.json} == {
        group["id"]: "created" for group in groups
    }
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
    for refused, missing in ((12, 99), (11, 12)):
        assert "no such security group" in results[identity(refused)]
        assert identity(missing) in results[identity(refused)]
    assert results[identity(13)] == "created"


def test_an_existing_group_in_a_circle_never_loses_a_rule(
    run: Run, server: Server, tmp_path: Path
) -> None:
    """An existing group comes into a circle with a new one."""
    first = {"security_groups": [group(11), group(13, 11)]}
    assert run("apply", write(tmp_path / "first.yaml", first)).code == 0
    before = listed(server)[identity(13)]["revision_number"]
    second = {"security_groups": [group(13, 11, 12), group(12, 13)]}
    assert run("apply", write(tmp_path / "second.yaml", second)).code == 0
    assert remotes(server, 13) == [identity(11), identity(12)]
    assert remotes(server, 12) == [identity(13)]
    assert listed(server)[identity(13)]["revision_number"] == before + 1


def network(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": identity(number), "network_type": "local", **fields}


def existing(server: Server) -> set[str]:
    """The networks on the server."""
    answer = requests.get(f"{server.url}/networks", params={"limit": 1000}, timeout=20).json()
    return {each["id"] for each in answer["networks"]}


def several(path: Path, *documents: object) -> str:
    path.write_text(yaml.safe_dump_all(documents))
    return str(path)


def test_a_file_of_several_documents_is_applied_in_their_order(
    run: Run, server: Server, tmp_path: Path
) -> None:
    """The second refers to the first; a last separator is no document."""
    first, second = {"networks": CLOUD["networks"]}, {**CLOUD, "networks": []}
    file = several(tmp_path / "cloud.yaml", first, second)
    Path(file).write_text(Path(file).read_text() + "---\n")
    ran = run("apply", file, "-f", "json")
    assert [(row["kind"], row["result"]) for row in ran.json] == [
        ("networks", "created"),
        ("security_groups", "created"),
        ("ports", "created"),
    ]


def test_a_wrong_part_of_a_later_document_is_named_before_anything_is_sent(
    run: Run, server: Server, tmp_path: Path
) -> None:
    file = several(tmp_path / "cloud.yaml", {"networks": [network(1)]}, {"ports": [{}]})
    ran = run("apply", file)
    assert ran.code == 2
    assert "document 2: ports.0.id" in ran.err
    assert existing(server) == set()


def test_an_atomic_document_is_applied_whole_or_not_at_all(
    run: Run, server: Server, tmp_path: Path
) -> None:
    wrong = {"networks": [network(1), network(2, mtu="big"), network(3)]}
    file = several(tmp_path / "cloud.yaml", wrong, {"networks": [network(4)]})
    ran = run("apply", "--atomic", file, "-f", "json")
    assert ran.code == 1
    results = {row["id"]: row["result"] for row in ran.json}
    assert results[identity(2)].startswith("mtu: ")
    for other in (identity(1), identity(3)):
        assert results[other] == f"not applied: {identity(2)} was refused"
    assert existing(server) == {identity(4)}
    assert "1 of 4 objects are applied; 3 are not" in ran.err


def test_more_objects_than_one_request_may_have_are_all_applied(
    run: Run, server: Server, tmp_path: Path
) -> None:
    """Two of them are refused, each in another request; progress is shown in lines."""
    networks = [network(number) for number in range(1, 1202)]
    networks[20]["mtu"] = networks[1100]["mtu"] = "big"
    file = write(tmp_path / "cloud.yaml", {"networks": networks})
    ran = run("apply", file, "-f", "json")
    assert ran.code == 1
    refused = {row["id"]: row["result"] for row in ran.json if row["result"] != "created"}
    assert refused.keys() == {identity(21), identity(1101)}
    assert all(result.startswith("mtu: ") for result in refused.values())
    assert len(existing(server)) == 10  # a page of this server
    assert "1199 of 1201 objects are applied; 2 are not" in ran.err
    assert "500 of 1201" in ran.err
    networks[20]["mtu"] = networks[1100]["mtu"] = 1500
    again = run("apply", write(tmp_path / "cloud.yaml", {"networks": networks}), "-f", "json")
    assert again.code == 0
    changed = {row["id"] for row in again.json if row["result"] != "unchanged"}
    assert changed == refused.keys()


def test_an_interruption_ends_with_what_was_applied_and_what_was_not(
    run: Run, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while the second request is answered."""
    apply = RestClient.apply
    calls = []

    def interrupted(self: RestClient, document: Any) -> Any:
        calls.append(document)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return apply(self, document)

    monkeypatch.setattr(RestClient, "apply", interrupted)
    networks = [network(number) for number in range(1, 1202)]
    ran = run("apply", write(tmp_path / "cloud.yaml", {"networks": networks}), "-f", "json")
    assert ran.code == 130
    assert {row["id"]: row["result"] for row in ran.json} == {
        identity(number): "created" for number in range(1, 501)
    }
    assert "Interrupted: 500 of 1201 objects are applied; 500 may be" in ran.err
    assert "201 were not sent" in ran.err


def test_a_server_that_fails_at_once_is_said_once(
    run: Run, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: RestClient, document: Any) -> Any:
        raise CommandFailed("the database does not answer; try again")

    monkeypatch.setattr(RestClient, "apply", failing)
    networks = [network(number) for number in range(1, 602)]
    ran = run("apply", write(tmp_path / "cloud.yaml", {"networks": networks}))
    assert ran.code == 1
    assert ran.out == ""
    assert ran.err.count("the database does not answer; try again") == 1


def test_a_server_that_fails_later_ends_the_command(
    run: Run, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied = RestClient.apply
    sent = itertools.count(1)

    def failing(self: RestClient, document: Any) -> Any:
        if next(sent) > 1:
            raise CommandFailed("the database does not answer; try again")
        return applied(self, document)

    monkeypatch.setattr(RestClient, "apply", failing)
    networks = [network(number) for number in range(1, 1102)]
    ran = run("apply", write(tmp_path / "cloud.yaml", {"networks": networks}), "-f", "json")
    assert ran.code == 1
    results = [row["result"] for row in ran.json]
    assert results[:500] == ["created"] * 500
    assert results[500:] == ["the database does not answer; try again"] * 500
    assert "500 of 1101 objects are applied; 500 are not; 101 were not sent" in ran.err


def test_what_json_cannot_hold_is_refused_with_its_place(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "cloud.yaml"
    for value in ("2001-01-01", ".nan"):
        file.write_text(f"networks: [{{id: {identity(1)}, mtu: {value}}}]")
        ran = run("apply", str(file))
        assert ran.code == 2
        assert "networks.0: " in ran.err


def test_a_document_with_one_id_twice_is_refused_before_anything_is_sent(
    run: Run, server: Server, tmp_path: Path
) -> None:
    groups = [group(11), group(12), group(11, 12)]
    ran = run("apply", write(tmp_path / "cloud.yaml", {"security_groups": groups}))
    assert ran.code == 2
    assert "security_groups.2.id" in ran.err
    assert listed(server) == {}
