"""agent-flows problem list, security-group show, network show: what is out of sync, and where."""

import pytest

from agent_flows.cli import columns, renamed
from tests.unit.cli.stage import GROUP, HOST, NETWORK, PORT, REFUSED, Run, Server

pytestmark = pytest.mark.usefixtures("cloud")


def test_problems_are_listed_by_cause_and_host(run: Run, server: Server) -> None:
    assert run("problem", "list", "-f", "json").json == []
    server.wire(error=REFUSED)
    (problem,) = run("problem", "list", "-f", "json").json
    since = problem.pop("since")
    assert problem == {
        "error_type": "SwitchError",
        "host": HOST,
        "ports": {"OUT_OF_SYNC": 1},
        "resource_type": "port",
        "resource_id": PORT,
        "message": "the switch refused a flow",
    }
    assert run("port", "show", PORT, "-f", "json", "-c", "sync_since").json["sync_since"] == since


@pytest.mark.parametrize(
    ("words", "number"),
    [
        (["--host", HOST], 1),
        (["--host", "compute-2"], 0),
        (["--type", "SwitchError"], 1),
        (["--type", "AgentSilent"], 0),
        (["--resource-id", PORT], 1),
        (["--port", GROUP], 0),
    ],
)
def test_problems_are_filtered_by_each_option(
    run: Run, server: Server, words: list[str], number: int
) -> None:
    server.wire(error=REFUSED)
    assert len(run("problem", "list", *words, "-f", "value", "-c", "host").out.split()) == number


def test_a_port_shows_why_it_is_out_of_sync(run: Run, server: Server) -> None:
    server.wire(error=REFUSED)
    shown = run("port", "show", PORT, "-f", "json").json
    assert shown["sync_revision"] is None
    assert shown["sync_reason"] == {"type": "SwitchError", "message": "the switch refused a flow"}
    reason = run("port", "show", PORT, "-c", "sync_reason").cells()
    assert reason == ["SwitchError: the switch refused a flow"]


@pytest.mark.parametrize(("kind", "id_"), [("security-group", GROUP), ("network", NETWORK)])
def test_a_group_and_a_network_show_the_hosts_that_lag(
    run: Run, server: Server, kind: str, id_: str
) -> None:
    server.wire(error=REFUSED)
    ports, host = run(kind, "show", id_, "-c", "sync").cells()
    assert ports == "OUT_OF_SYNC 1"
    assert host.startswith(f"host {HOST} lags: 1 ports, since ")
    server.wire()
    assert run(kind, "show", id_, "-c", "sync").cells() == ["IN_SYNC 1"]


def test_hosts_that_are_not_named_are_counted() -> None:
    host = {"host": "compute-7", "ports": 3, "revision": 8, "since": None}
    rollup = {"ports": {"SYNCING": 9}, "lagging_hosts": [host], "more_lagging_hosts": 4}
    assert columns.Rollup(rollup).human_readable().splitlines() == [
        "SYNCING 9",
        "host compute-7 lags at revision 8: 3 ports",
        "and 4 more hosts",
    ]
    assert columns.Rollup({"ports": {"SYNCING": 0}}).human_readable() == "no ports"


@pytest.mark.parametrize("command", renamed._Renamed.__subclasses__())
def test_help_of_an_old_name_gives_the_new_one(command: type[renamed._Renamed]) -> None:
    described = command(None, None).get_description()
    assert described.startswith(f"Deprecated: use openstack {command.new_name}.\n\n")
    assert len(described.splitlines()[2]) > 20
    assert command.deprecated
