"""agent-flows port: what operators and scripts see of a port."""

import threading

import pytest

from tests.unit.cli.stage import GROUP, HOST, NETWORK, PORT, REFUSED, Run, Server, identity

pytestmark = pytest.mark.usefixtures("cloud")


def test_a_list_shows_status_and_sync_state(run: Run, server: Server) -> None:
    server.wire()
    assert run("port", "list", "-f", "json").json == [
        {
            "id": PORT,
            "name": "web1",
            "status": "ACTIVE",
            "sync_state": "IN_SYNC",
            "host": HOST,
            "mac_address": "fa:16:3e:00:00:01",
            "fixed_ips": [{"ip_address": "10.0.0.11"}],
            "network_id": NETWORK,
        }
    ]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--host", HOST], [PORT]),
        (["--host", "compute-2"], []),
        (["--name", "web1"], [PORT]),
        (["--name", "web2"], []),
        (["--status", "DOWN"], [PORT]),
        (["--status", "ACTIVE"], []),
        (["--sync-state", "SYNCING"], [PORT]),
        (["--sync-state", "IN_SYNC"], []),
    ],
)
def test_a_list_is_filtered_by_each_option(run: Run, words: list[str], found: list[str]) -> None:
    assert run("port", "list", *words, "-f", "value", "-c", "id").out.split() == found


def test_show_has_the_tasks_of_the_last_attempt_in_order(run: Run, server: Server) -> None:
    server.wire(error=REFUSED)
    server.wire()
    shown = run("port", "show", PORT, "-f", "json").json
    assert shown["status"] == "ACTIVE"
    assert shown["security_groups"] == [GROUP]
    assert [(task["name"], task["task_state"]) for task in shown["tasks"]] == [
        ("locate-interface", "SUCCEEDED"),
        ("apply-security-groups", "SUCCEEDED"),
        ("bind-vlan", "SUCCEEDED"),
    ]


def test_show_has_the_error_and_the_output_of_the_switch(run: Run, server: Server) -> None:
    server.wire(error=REFUSED)
    bar, whole, none = "█·····················", "█" * 22, " " * 22
    assert run("port", "show", PORT, "-c", "tasks").cells() == [
        f"locate-interface       {bar}    2.0 ms  SUCCEEDED",
        f"apply-security-groups  {whole}   31.0 ms  FAILED",
        "  SwitchError: the switch refused a flow",
        "    OFPFMFC_TABLE_FULL",
        "    cookie:0xaf10",
        f"bind-vlan              {none}            PENDING",
    ]


def test_show_has_earlier_attempts_with_their_errors(run: Run, server: Server) -> None:
    server.wire(error=REFUSED)
    server.wire()
    first, error = run("port", "show", PORT, "-c", "earlier").cells()
    assert first.startswith("wire, attempt 1, revision 1, at 2026-01-01 00:00:00 UTC: failed")
    assert error == "  apply-security-groups: SwitchError: the switch refused a flow"
    earlier = run("port", "show", PORT, "-f", "json").json["earlier"]
    assert [task["attempt"] for task in earlier] == [1, 1, 1]


def test_show_has_the_reason_and_the_remedy_near_the_top(run: Run, server: Server) -> None:
    server.wire(error=REFUSED)
    rows = [
        line.split("|")[1].strip()
        for line in run("port", "show", PORT).out.splitlines()[1:12]
        if "|" in line
    ]
    assert rows.index("reason") < rows.index("host")
    reason = run("port", "show", PORT, "-f", "value", "-c", "reason").out
    assert "apply-security-groups failed: SwitchError: the switch refused a flow. To do: " in reason


def test_problems_lists_only_ports_with_a_problem_and_its_reason(run: Run, server: Server) -> None:
    server.wire(error=REFUSED)
    (shown,) = run("port", "list", "--problems", "-f", "json").json
    assert shown["id"] == PORT
    assert "SwitchError" in shown["reason"]
    server.wire()
    assert run("port", "list", "--problems", "-f", "json").json == []


def test_an_empty_list_of_a_host_shows_whether_an_agent_ever_reported(
    run: Run, server: Server
) -> None:
    ran = run("port", "list", "--host", "nope", "-f", "json")
    assert (ran.code, ran.json) == (0, [])
    assert ran.err == "no such port on host nope, and no agent ever reported from it\n"
    server.store.take_heartbeat("idle", {})
    assert run("port", "list", "--host", "idle").err == "no such port on host idle\n"


def test_show_of_a_port_without_a_report_has_no_attempt(run: Run) -> None:
    shown = run("port", "show", PORT, "-f", "json").json
    assert shown["last_attempt"] == "none reported yet"
    assert shown["tasks"] == []


def test_resync_reaches_the_agent_of_the_port(run: Run, server: Server) -> None:
    ran = run("port", "resync", PORT)
    assert (ran.code, ran.err) == (0, f"{PORT}: resync requested\n")
    assert server.resynced == {PORT}


def test_resync_without_an_agent_is_an_error(run: Run, server: Server) -> None:
    run("agent", "delete", HOST)
    ran = run("port", "resync", PORT)
    assert ran.code == 1
    assert f"no agent was ever seen on host {HOST}; nothing was sent" in ran.err
    assert server.resynced == set()


def test_resync_continues_after_a_port_that_fails(run: Run, server: Server) -> None:
    ran = run("port", "resync", identity(98), PORT, identity(99))
    assert ran.code == 1
    assert server.resynced == {PORT}
    first, second, third, last = ran.err.splitlines()
    assert first == f"{identity(98)}: there is no port {identity(98)}"
    assert second == f"{PORT}: resync requested"
    assert third == f"{identity(99)}: there is no port {identity(99)}"
    assert last == f"2 of 3 failed: {identity(98)}, {identity(99)}"


def test_resync_of_a_missing_port_returns_4(run: Run) -> None:
    assert run("port", "resync", identity(99)).code == 4


def test_wait_returns_0_when_the_port_reaches_the_state(run: Run, server: Server) -> None:
    plugged = threading.Timer(0.2, server.wire)
    plugged.start()
    ran = run("port", "wait", PORT, "--status", "ACTIVE", "--timeout", "20")
    plugged.join()
    assert ran.code == 0
    assert ran.out == ""
    assert [line.split()[2:] for line in ran.err.splitlines()][0::99] == [["DOWN", "SYNCING"]]
    assert "ACTIVE IN_SYNC" in ran.err.splitlines()[-1]


def test_wait_for_a_sync_state_returns_0(run: Run, server: Server) -> None:
    server.wire(error=REFUSED)
    assert run("port", "wait", PORT, "--sync-state", "OUT_OF_SYNC").code == 0


def test_wait_returns_3_after_the_timeout_and_shows_what_failed(run: Run, server: Server) -> None:
    server.wire(error=REFUSED)
    ran = run("port", "wait", PORT, "--status", "ACTIVE", "--timeout", "0.1")
    assert ran.code == 3
    assert "DOWN OUT_OF_SYNC, not ACTIVE" in ran.err
    assert "apply-security-groups failed: SwitchError: the switch refused a flow" in ran.err


def test_wait_shows_the_reason_and_the_remedy(run: Run) -> None:
    run("agent", "delete", HOST)
    ran = run("port", "wait", PORT, "--timeout", "0.1")
    assert ran.code == 3
    assert ran.err.count(f"No agent was ever seen on host {HOST}") == 2  # while it waits, and last


def test_wait_for_a_missing_port_returns_4_at_once(run: Run) -> None:
    ran = run("port", "wait", identity(99), "--timeout", "60")
    assert ran.code == 4
    assert identity(99) in ran.err


def test_show_of_a_missing_port_returns_4_without_a_table(run: Run) -> None:
    ran = run("port", "show", identity(99))
    assert (ran.code, ran.out) == (4, "")


@pytest.mark.parametrize(
    "words",
    [
        ["port", "show"],
        ["port", "wait", PORT, "--timeout", "0"],
        ["port", "wait", PORT, "--timeout", "soon"],
        ["port", "wait", PORT, "--status", "UP"],
        ["port", "list", "--sync-state", "FINE"],
        ["port", "list", "-f", "xml"],
        ["prot", "list"],
    ],
    ids=" ".join,
)
def test_an_invalid_command_line_returns_2(run: Run, words: list[str]) -> None:
    assert run(*words).code == 2
