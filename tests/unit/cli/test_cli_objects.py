"""agent-flows network, security-group, address-group; port create and delete; explain; top."""

import pytest

from agent_flows.errors import ErrorType
from tests.unit.cli.stage import GROUP, HOST, NETWORK, PORT, REFUSED, Run, Server

pytestmark = pytest.mark.usefixtures("cloud")


def test_networks_and_groups_are_listed(run: Run, server: Server) -> None:
    server.wire()
    (network,) = run("network", "list", "-f", "json").json
    assert (network["id"], network["sync"]["ports"]["IN_SYNC"]) == (NETWORK, 1)
    (group,) = run("security-group", "list", "--name", "web", "-f", "json").json
    assert (group["id"], len(group["security_group_rules"])) == (GROUP, 1)
    assert run("security-group", "list", "--name", "db", "-f", "json").json == []
    assert "IN_SYNC 1" in run("security-group", "list").out
    assert run("address-group", "list", "-f", "json").json == []
    assert run("address-group", "show", "offices").code == 4


def test_a_port_is_created_and_deleted(run: Run) -> None:
    created = run(
        "port", "create", "--network", NETWORK, "--fixed-ip", "ip-address=10.0.0.12",
        "--fixed-ip", "ip-address=2001:db8::12", "--security-group", "web", "--host", HOST,
        "--allowed-address", "ip-address=10.9.0.0/24,mac-address=fa:16:3e:00:00:77",
        "--disable", "web2", "-f", "json",
    )  # fmt: skip
    assert created.code == 0, created.err
    shown = run("port", "show", "web2", "-f", "json").json
    assert shown["id"] == created.json["id"]
    assert shown["security_groups"] == [GROUP]
    assert shown["host"] == HOST
    assert shown["admin_state_up"] is False
    assert shown["mac_address"].startswith("fa:16:3e:")
    assert [each["ip_address"] for each in shown["fixed_ips"]] == ["10.0.0.12", "2001:db8::12"]
    assert shown["allowed_address_pairs"] == [
        {"ip_address": "10.9.0.0/24", "mac_address": "fa:16:3e:00:00:77"}
    ]
    ran = run("port", "delete", "web2", "web1")
    assert (ran.code, ran.err) == (0, "web2: deleted\nweb1: deleted\n")
    assert run("port", "list", "-f", "json").json == []


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--network", NETWORK, "--fixed-ip", "subnet=net1"], 2, "'subnet=net1' is not one of"),
        (["--network", NETWORK, "--fixed-ip", "ip-address="], 2, "is not one of"),
        (["--network", NETWORK, "--allowed-address", "mac-address=x"], 2, "ip-address=... is miss"),
        (["--network", "nope"], 4, "There is no network with the name nope"),
        (["--network", NETWORK, "--security-group", "nope"], 4, "There is no security group with"),
        (["--network", NETWORK, "--mac-address", "nope"], 1, "mac_address"),
        ([], 2, "--network"),
    ],
    ids=str,
)
def test_an_invalid_port_is_refused_with_what_would_be_right(
    run: Run, words: list[str], code: int, says: str
) -> None:
    ran = run("port", "create", *words, "web2")
    assert ran.code == code
    assert says in ran.err


def test_every_type_of_error_is_explained(shell: Run) -> None:
    listed = shell("explain").out
    for each in ErrorType:
        ran = shell("explain", each.value.lower())
        assert ran.code == 0
        text = " ".join(ran.out.split())
        assert each.cause.replace("`", "") in text
        assert each.remedy.replace("`", "") in text
        assert each.value in listed
        assert max(map(len, ran.out.splitlines())) <= 100
    assert max(map(len, listed.splitlines())) <= 100


def test_a_misspelt_type_of_error_is_answered_with_the_right_one(shell: Run) -> None:
    ran = shell("explain", "FlowsRefused")
    assert ran.code == 4
    assert ran.err.startswith("There is no type of error FlowsRefused. Did you mean FlowRefused")
    assert len(ran.err.splitlines()) == 1


def test_top_prints_once_where_there_is_no_terminal(run: Run, server: Server) -> None:
    server.wire(error=REFUSED)
    ran = run("top")
    assert ran.code == 0
    assert ran.out.startswith("1 of 1 agents alive; ports: 1 OUT_OF_SYNC; ")
    assert HOST in ran.out
    assert "SwitchError" in ran.out
    assert PORT not in ran.out
    assert "\x1b" not in ran.out


def test_top_refuses_an_interval_that_is_none(run: Run) -> None:
    assert run("top", "--interval", "0").code == 2
