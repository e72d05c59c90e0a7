"""Control characters in text from outside do not reach a terminal."""

from collections.abc import Mapping
from typing import Any

import pytest

from agent_flows.cli.app import ClientManager
from agent_flows.cli.failure import CommandFailed
from agent_flows.printable import printable
from tests.unit.cli.stage import PORT, Run

EVIL = "\x1b[31mowned\x1b]0;title\x07 c1\x9b1m \u202eabc\u2066 two\nlines\rback\x7f\u200f end"
MOMENT = "2026-01-01T00:00:00+00:00"
_FORMATS = ["table", "value", "csv", "shell"]

TASK = {
    "id": EVIL,
    "resource_type": "port",
    "resource_id": EVIL,
    "host": EVIL,
    "flow": EVIL,
    "flow_id": EVIL,
    "name": EVIL,
    "step": "l2",
    "order": 0,
    "task_state": EVIL,
    "attempt": 1,
    "revision": 1,
    "started_at": MOMENT,
    "duration": 0.1,
    "error": {"type": EVIL, "message": EVIL, "detail": EVIL},
}
RESOURCES: Mapping[str, dict[str, Any]] = {
    "ports": {
        "id": EVIL,
        "name": EVIL,
        "status": "DOWN",
        "sync_state": "OUT_OF_SYNC",
        "reason": EVIL,
        "binding:host_id": EVIL,
        "mac_address": EVIL,
        "network_id": EVIL,
        "fixed_ips": [{"ip_address": EVIL}],
        "allowed_address_pairs": [{"ip_address": EVIL, "mac_address": EVIL}],
        "security_groups": [EVIL],
        "port_security_enabled": True,
        "admin_state_up": True,
        "revision_number": 1,
        "updated_at": MOMENT,
    },
    "tasks": TASK,
    "networks": {"id": EVIL, "name": EVIL},
    "security-groups": {"id": EVIL, "name": EVIL},
    "problems": {
        "error_type": EVIL,
        "host": EVIL,
        "ports": {"OUT_OF_SYNC": 1},
        "since": MOMENT,
        "resource_type": "port",
        "resource_id": EVIL,
        "message": EVIL,
    },
    "agents": {
        "id": EVIL,
        "host": EVIL,
        "alive": True,
        "heartbeat_at": MOMENT,
        "sequence": 1,
        "state": {EVIL: EVIL, "trouble": EVIL, "troubles": {EVIL: EVIL}, "version": EVIL},
        "conflict": {"boot_id": EVIL, "heard_at": MOMENT},
        "ports": {EVIL: 1},
    },
}


class Evil:
    """A server whose answers contain hostile text."""

    shortens_tasks = True

    def find(self, collection: str, *args: object, **kwargs: object) -> list[dict[str, Any]]:
        return [dict(RESOURCES[collection])]

    def show(self, collection: str, resource_id: str) -> dict[str, Any]:
        return dict(RESOURCES[collection])

    def resync(self, port_id: str) -> None:
        raise CommandFailed(EVIL)


@pytest.fixture(autouse=True)
def evil(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClientManager, "agent_flows", Evil())


def harmless(text: str) -> bool:
    return all(char == "\n" or printable(char) == char for char in text)


@pytest.mark.parametrize("shape", _FORMATS)
@pytest.mark.parametrize(
    "words",
    [
        ["port", "list"],
        ["port", "show", PORT],
        ["task", "list"],
        ["task", "show", PORT],
        ["agent", "list"],
        ["problem", "list"],
    ],
    ids=" ".join,
)
def test_output_is_escaped_for_a_terminal(shell: Run, words: list[str], shape: str) -> None:
    if words[1] == ("list" if shape == "shell" else "show" if shape == "csv" else ""):
        shape = "table"
    ran = shell(*words, "-f", shape)
    assert ran.code == 0
    assert harmless(ran.out + ran.err)
    assert "owned" in ran.out
    # The escapes are readable, and there is no forged line.
    assert r"\x1b" in ran.out
    assert not any(line.startswith("lines") for line in ran.out.splitlines())


def test_top_is_escaped_for_a_terminal(shell: Run) -> None:
    ran = shell("top")
    assert ran.code == 0
    assert harmless(ran.out)
    assert r"\x1b" in ran.out


@pytest.mark.parametrize("words", [["port", "list"], ["agent", "list"], ["task", "list"]])
def test_json_contains_the_text_unchanged(shell: Run, words: list[str]) -> None:
    (shown,) = shell(*words, "-f", "json").json
    assert EVIL in shown.values()


@pytest.mark.parametrize(
    "words",
    [["port", "resync", PORT], ["port", "wait", PORT, "--timeout", "0.01"]],
    ids=" ".join,
)
def test_an_error_is_escaped_for_a_terminal(shell: Run, words: list[str]) -> None:
    ran = shell(*words)
    assert ran.code != 0
    assert harmless(ran.err)
    assert "owned" in ran.err
