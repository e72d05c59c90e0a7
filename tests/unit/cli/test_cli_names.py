"""Names, and beginnings of ids, are taken wherever an id is; lists show them and fit a terminal."""

from typing import Any

import pytest

from agent_flows.cli import refs
from tests.unit.cli.stage import GROUP, HOST, NETWORK, PORT, REFUSED, Run, Server, identity

pytestmark = pytest.mark.usefixtures("cloud")

_LONG = {
    "name": "a-name-that-is-as-long-as-operators-make-them-" * 3,
    "fixed_ips": [{"ip_address": f"2001:db8:1111:2222:3333:4444:5555:{n:04x}"} for n in range(4)],
}


def put(server: Server, collection: str, id_: str, **body: Any) -> None:
    from agent_flows.cli.client import RestClient

    RestClient(server.url).put(collection, id_, body)


def port(server: Server, id_: str, mac: str, **body: Any) -> None:
    given = {"network_id": NETWORK, "mac_address": mac, "binding:host_id": HOST, **body}
    put(server, "ports", id_, **given)


@pytest.fixture
def namesake(server: Server) -> str:
    """Another port with the name of PORT."""
    id_ = "abcdef00-0000-4000-8000-000000000001"
    port(server, id_, "fa:16:3e:00:00:02", name="web1")
    return id_


@pytest.mark.parametrize("typed", ["web1", PORT, PORT[:-1], "000"])
def test_a_port_is_found_by_what_is_typed(run: Run, typed: str) -> None:
    assert run("port", "show", typed, "-f", "value", "-c", "id").out.strip() == PORT


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["port", "resync", "web1"], 0),
        (["port", "wait", "web1", "--status", "DOWN"], 0),
        (["task", "list", "--port", "web1"], 0),
        (["problem", "list", "--port", "web1"], 0),
        (["problem", "list", "--port", "web"], 0),
        (["security-group", "show", "web"], 0),
        (["port", "list", "--network", NETWORK[:10]], 0),
        (["port", "delete", "web1"], 0),
        (["port", "resync", "web2"], 4),
        (["task", "list", "--port", "web2"], 4),
        (["network", "show", "net"], 4),
    ],
    ids=str,
)
def test_names_are_taken_wherever_an_id_is(run: Run, words: list[str], code: int) -> None:
    assert run(*words).code == code


def test_an_ambiguous_name_is_one_line_that_lists_the_ids(run: Run, namesake: str) -> None:
    ran = run("port", "show", "web1")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"2 ports have the name web1: {PORT}, {namesake}. Give an id.\n"
    assert run("port", "show", namesake[:8]).code == 0


def test_an_unknown_name_is_one_line_that_shows_what_would_be_right(run: Run) -> None:
    ran = run("port", "show", "nope")
    assert ran.code == 4
    assert ran.err == "There is no port with the name nope, nor one whose id begins so.\n"


def test_a_wildcard_in_the_beginning_of_an_id_matches_itself_only(run: Run, server: Server) -> None:
    from agent_flows.cli.client import RestClient

    client = RestClient(server.url)
    assert client.beginning("ports", "0000%") == []
    assert [each["id"] for each in client.beginning("ports", "0000")] == [PORT]


def test_a_short_id_of_a_list_is_taken_by_other_commands(run: Run, server: Server) -> None:
    server.wire(error=REFUSED)
    rows = [line for line in run("port", "list").out.splitlines() if "web1" in line]
    short = rows[0].split("|")[1].strip()
    assert len(short) < len(PORT)
    assert run("port", "show", short).code == 0
    task = run("task", "list", "--state", "FAILED").out.splitlines()[3].split("|")[1].strip()
    shown = run("task", "show", task, "-f", "json").json
    assert shown["name"] == "apply-security-groups"
    flow = task.partition(".")[0]
    assert run("task", "show", f"{flow}.9").code == 4


@pytest.mark.parametrize(
    "words",
    [
        ["port", "list"],
        ["port", "list", "--problems"],
        ["port", "show", PORT],
        ["task", "list"],
        ["problem", "list"],
        ["agent", "list"],
        ["network", "list"],
        ["security-group", "list"],
        ["top"],
    ],
    ids=" ".join,
)
def test_what_is_printed_fits_100_columns(run: Run, server: Server, words: list[str]) -> None:
    port(server, PORT, "fa:16:3e:00:00:01", **_LONG, security_groups=[GROUP])
    server.wire(error=REFUSED)
    ran = run(*words)
    assert ran.code == 0
    assert max(map(len, ran.out.splitlines())) <= 100
    assert len(ran.out.splitlines()) > 2


def test_long_and_formats_for_programs_are_complete(run: Run, server: Server) -> None:
    server.wire()
    assert PORT in run("port", "list", "--long").out
    assert "mac_address" in run("port", "list", "--long").out
    assert PORT in run("port", "list", "-f", "csv").out
    assert PORT in run("port", "list", "-c", "id").out
    (task,) = run("task", "list", "--limit", "1", "-f", "json").json
    assert task["resource_id"] == PORT


def test_a_list_of_tasks_has_the_names_of_the_ports(run: Run, server: Server) -> None:
    server.wire(error=REFUSED)
    assert "| web1 " in run("task", "list").out
    assert "| web1 " in run("problem", "list").out


def test_a_port_shows_the_names_of_its_groups(run: Run) -> None:
    assert run("port", "show", PORT, "-c", "security_groups").cells() == [f"web ({GROUP})"]
    assert run("port", "show", PORT, "-f", "json").json["security_groups"] == [GROUP]


def test_ids_are_shortened_as_far_as_they_differ() -> None:
    ids = [identity(1), identity(2), "abcdef00-0000-4000-8000-000000000001"]
    assert refs.shortened(ids) == {ids[0]: ids[0], ids[1]: ids[1], ids[2]: "abcdef00"}
    assert refs.shortened([ids[0]]) == {ids[0]: "00000000"}
    assert refs.shortened([]) == {}
