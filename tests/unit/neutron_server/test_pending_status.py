"""The next step towards the verdict about a port."""

import dataclasses
import itertools
from typing import Any

import pytest

from agent_flows.neutron.server.block_policy import ENTITY
from agent_flows.neutron.server.pending_status import PendingStatus
from agent_flows.report import PortStatus

OURS, L2 = frozenset({ENTITY}), frozenset({"L2"})
TO_DO = ("to_lift", "to_block", "to_activate", "to_deactivate")


def status(verdict: str, active: bool, blocked_by: frozenset[str]) -> PendingStatus:
    return PendingStatus("port", 1, PortStatus(verdict), active, blocked_by)


@pytest.mark.parametrize(
    ("verdict", "active", "blocked_by", "to_do", "settled"),
    [
        ("ACTIVE", True, frozenset(), None, True),
        ("ACTIVE", True, OURS, "to_lift", True),
        ("ACTIVE", False, OURS, "to_lift", False),
        ("ACTIVE", False, OURS | L2, "to_lift", False),
        ("ACTIVE", False, L2, None, False),
        ("ACTIVE", False, frozenset(), "to_activate", False),
        ("DOWN", False, OURS, None, True),
        ("DOWN", False, OURS | L2, None, True),
        ("DOWN", False, L2, "to_block", False),
        ("DOWN", False, frozenset(), "to_block", False),
        ("DOWN", True, frozenset(), "to_deactivate", False),
        ("DOWN", True, OURS, "to_deactivate", False),
    ],
)
def test_unsettled_port_has_one_next_step(
    verdict: str, active: bool, blocked_by: frozenset[str], to_do: str | None, settled: bool
) -> None:
    port = status(verdict, active, blocked_by)
    assert [name for name in TO_DO if getattr(port, name)] == ([to_do] if to_do else [])
    assert port.settled is settled


@pytest.mark.parametrize(
    ("verdict", "active", "blocked_by", "up", "to_do", "settled"),
    [
        ("DOWN", False, frozenset(), True, "to_activate", False),
        ("DOWN", False, frozenset(), False, None, True),
        ("DOWN", False, L2, True, None, True),
        ("ACTIVE", False, frozenset(), False, "to_activate", False),
        ("ACTIVE", True, frozenset(), True, None, True),
    ],
)
def test_a_port_that_needs_no_proof_follows_neutrons_own_agent(
    *,
    verdict: str,
    active: bool,
    blocked_by: frozenset[str],
    up: bool,
    to_do: str | None,
    settled: bool,
) -> None:
    port = dataclasses.replace(status(verdict, active, blocked_by), ungated=True, up=up)
    assert [name for name in TO_DO if getattr(port, name)] == ([to_do] if to_do else [])
    assert port.settled is settled


def test_every_port_is_settled_after_its_steps() -> None:
    """Neutron's agent lifts its own block at some time."""
    steps: dict[str, Any] = {
        "to_lift": lambda p: status(p.verdict, p.active, p.blocked_by - OURS),
        "to_block": lambda p: status(p.verdict, p.active, p.blocked_by | OURS),
        "to_activate": lambda p: status(p.verdict, True, p.blocked_by),
        "to_deactivate": lambda p: status(p.verdict, False, p.blocked_by | OURS),
    }
    blocks = (frozenset(), OURS, L2, OURS | L2)
    for verdict, active, by in itertools.product(PortStatus, (True, False), blocks):
        port = status(verdict, active, by)
        for _ in range(5):
            todo = next((name for name in TO_DO if getattr(port, name)), None)
            if todo is None:
                port = status(port.verdict, port.active, port.blocked_by - L2)
            else:
                port = steps[todo](port)
        assert port.settled
        assert port.active is (verdict is PortStatus.ACTIVE)
        assert (ENTITY in port.blocked_by) is (verdict is PortStatus.DOWN)
