"""What the demonstration's document must contain, without Neutron and inside it."""

from typing import Any


def check_document(document: dict[str, Any]) -> None:
    """Raises AssertionError."""
    assert set(document) == {"ports", "connections", "failure", "recovered", "drift", "seconds"}
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
    drift = document["drift"]
    assert drift["port_id"] in {port["id"] for port in document["ports"]}
    assert 0 < drift["told_seconds"] <= drift["repaired_seconds"]
    assert (drift["task"]["name"], drift["task"]["task_state"]) == ("compare-switch", "FAILED")
    assert drift["task"]["error"]["type"] == "Drift"
    assert "table=82" in drift["task"]["error"]["detail"]
    assert document["seconds"] > 0
