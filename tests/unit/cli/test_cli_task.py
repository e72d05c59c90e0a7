"""agent-flows task and agent: the outcomes of flows, and the agents."""

import pytest

from tests.unit.cli.stage import HOST, PORT, REFUSED, Run, Server

pytestmark = pytest.mark.usefixtures("cloud")


def test_a_list_shows_the_failed_task_of_a_port(run: Run, server: Server) -> None:
    server.wire(error=REFUSED)
    (task,) = run("task", "list", "--resource-id", PORT, "--state", "FAILED", "-f", "json").json
    assert task["name"] == "apply-security-groups"
    assert task["error"] == {
        "type": "SwitchError",
        "message": "the switch refused a flow",
        "detail": "OFPFMFC_TABLE_FULL\ncookie:0xaf10",
    }


@pytest.mark.parametrize(
    ("words", "number"),
    [
        (["--host", HOST], 6),
        (["--host", "compute-2"], 0),
        (["--flow", "wire"], 6),
        (["--flow", "refresh"], 0),
        (["--name", "bind-vlan"], 2),
        (["--limit", "4"], 4),
        (["--limit", "0"], 6),
    ],
    ids=str,
)
def test_a_list_is_filtered_by_each_option(
    run: Run, server: Server, words: list[str], number: int
) -> None:
    server.wire(error=REFUSED)
    server.wire()
    assert len(run("task", "list", *words, "-f", "json").json) == number


def test_a_list_is_sorted_by_a_field(run: Run, server: Server) -> None:
    server.wire()
    names = run("task", "list", "--sort", "duration:desc", "-f", "value", "-c", "name").out
    assert names.split() == ["apply-security-groups", "locate-interface", "bind-vlan"]


def test_a_list_longer_than_the_servers_page_is_complete(run: Run, server: Server) -> None:
    for _ in range(8):
        server.wire()
    assert len(run("task", "list", "--limit", "0", "-f", "json").json) == 24
    assert len(run("task", "list", "--limit", "13", "-f", "json").json) == 13


def test_an_unknown_sort_key_is_refused_by_name(run: Run) -> None:
    ran = run("task", "list", "--sort", "colour")
    assert ran.code == 1
    assert "sort_key" in ran.err
    assert "colour" in ran.err


def test_show_has_the_whole_error_of_a_task(run: Run, server: Server) -> None:
    server.wire(error=REFUSED)
    found = run("task", "list", "--state", "FAILED", "-f", "value", "-c", "id").out.strip()
    assert run("task", "show", found, "-c", "error").cells() == [
        "SwitchError: the switch refused a flow",
        "OFPFMFC_TABLE_FULL",
        "cookie:0xaf10",
    ]


def test_show_of_a_missing_task_returns_4(run: Run) -> None:
    assert run("task", "show", f"{PORT}.0").code == 4


def test_agents_are_listed_with_liveness(run: Run, server: Server) -> None:
    server.store.take_heartbeat(HOST, {"bridge": "br-int"})
    (agent,) = run("agent", "list", "-f", "json").json
    assert agent["host"] == HOST
    assert agent["alive"] is True
    assert agent["state"]["bridge"] == "br-int"


def test_an_agent_is_shown_with_troubles_and_the_age_of_its_heartbeat(
    run: Run, server: Server
) -> None:
    troubles = {"switch": "ovs-vswitchd does not answer", "outbox": "the disk is full"}
    state = {"bridge": "br-int", "waiting": 3, "trouble": troubles["switch"], "troubles": troubles}
    server.store.take_heartbeat(HOST, state)
    (listed,) = run("agent", "list", "-f", "json").json
    assert listed["trouble"] == "ovs-vswitchd does not answer"
    assert listed["conflict"] is None
    table = run("agent", "show", HOST).out
    for shown in (
        "switch: ovs-vswitchd does not answer",
        "outbox: the disk is full",
        "bridge br-int, waiting 3",
        " s ago",
    ):
        assert shown in table
    assert run("agent", "show", HOST, "-f", "json").json["trouble"] == troubles
    assert run("agent", "show", "nope").code == 4


def test_an_agent_shows_whether_it_has_the_desired_state(run: Run, server: Server) -> None:
    server.store.take_heartbeat(HOST, {})
    assert "in step" not in run("agent", "show", HOST).out
    server.store.take_heartbeat(HOST, {"desired": server.store.get_revisions(HOST).digest()})
    assert run("agent", "show", HOST, "-c", "desired").cells() == ["in step"]
    server.store.take_heartbeat(HOST, {"desired": "0" * 32})
    assert "differs from the server's, first " in run("agent", "show", HOST).out
    assert run("agent", "show", HOST, "-f", "json").json["desired"]["in_step"] is False


def test_resync_of_a_host_continues_after_an_unknown_one(run: Run) -> None:
    ran = run("agent", "resync", HOST)
    assert (ran.code, ran.err) == (0, f"{HOST}: resync of all its ports requested\n")
    assert run("agent", "resync", "nope").code == 4
    ran = run("agent", "resync", "nope", HOST)
    assert ran.code == 1
    assert f"{HOST}: resync of all its ports requested" in ran.err


def test_a_deleted_agent_is_not_listed(run: Run) -> None:
    assert run("agent", "delete", HOST).code == 0
    assert run("agent", "list", "-f", "json").json == []
    assert run("agent", "delete", HOST).code == 4


def test_a_list_that_ends_at_its_limit_shows_a_hint(run: Run, server: Server) -> None:
    server.wire()
    assert "--limit 0 shows all" in run("task", "list", "--limit", "2").err
    assert run("task", "list", "--limit", "4").err == ""
    assert run("task", "list", "--limit", "0").err == ""
