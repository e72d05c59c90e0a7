"""What the demonstration's document must contain, without Neutron and inside it."""

from typing import Any


def check_document(document: dict[str, Any]) -> None:
    """Raises AssertionError."""
    assert set(document) == {"ports", "connections", "failure", "recovered", "seconds"}
    assert len(document["ports"]) == 6
    for port in document["ports"]:
        assert (port["status"], port["sync_state"]) == ("ACTIVE", "IN_SYNC")
        assert port["id"]
        assert port["name"]
        assert port["host"]
    assert {c["observed"] for c in document["connections"]} == {"pass", "drop", "cut"}
    assert all(c["observed"] == c["expected"] for c in document["connections"])
    failure = document["failure"]
    assert (failure["status"], failure["sync_state"]) == ("DOWN", "OUT_OF_SYNC")
    assert failure["passed_traffic"] is False
    assert failure["task"]["name"] == "apply-security-groups"
    assert failure["task"]["task_state"] == "FAILED"
    assert failure["task"]["error"]["type"] == "FlowRefused"
    assert "OFPFMFC_TABLE_FULL" in failure["task"]["error"]["detail"]
    assert document["recovered"] is True
    assert document["seconds"] > 0
