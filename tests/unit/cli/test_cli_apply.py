"""agent-flows apply: a document becomes desired state, and what is wrong with it is named."""

import copy
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.cli.stage import CLOUD, GROUP, NETWORK, PORT, Run


def write(path: Path, document: object) -> str:
    path.write_text(yaml.safe_dump(document))
    return str(path)


def test_a_yaml_document_is_put_in_the_order_of_what_refers_to_what(
    run: Run, tmp_path: Path
) -> None:
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


def test_a_document_may_come_from_standard_input(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(CLOUD)))
    assert run("apply", "-").code == 0


def test_a_refused_object_is_shown_with_the_reason_and_the_others_are_applied(
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
def test_a_document_that_cannot_be_used_is_refused_before_anything_is_sent(
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


def test_a_file_that_is_not_there_returns_2_and_is_named(run: Run) -> None:
    ran = run("apply", "/nonexistent/cloud.yaml")
    assert ran.code == 2
    assert "/nonexistent/cloud.yaml" in ran.err
