"""The document of the quickstart's story, whatever it was played on."""

from typing import Any


def check_all_is_as_it_should_be(story: dict[str, Any]) -> None:
    """Raises AssertionError."""
    assert set(story) == {"ports", "connections", "failure", "recovered", "seconds"}
    assert len(story["ports"]) == 6
    for port in story["ports"]:
        assert (port["status"], port["sync_state"]) == ("ACTIVE", "IN_SYNC")
        assert port["id"]
        assert port["name"]
        assert port["host"]
    assert {c["observed"] for c in story["connections"]} == {"pass", "drop", "cut"}
    assert all(c["observed"] == c["expected"] for c in story["connections"])
    failure = story["failure"]
    assert (failure["status"], failure["sync_state"]) == ("DOWN", "OUT_OF_SYNC")
    assert failure["passed_traffic"] is False
    assert failure["task"]["name"] == "apply-security-groups"
    assert failure["task"]["task_state"] == "FAILED"
    assert failure["task"]["error"]["type"] == "FlowRefused"
    assert "OFPFMFC_TABLE_FULL" in failure["task"]["error"]["detail"]
    assert story["recovered"] is True
    assert story["seconds"] > 0
