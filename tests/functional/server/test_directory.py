"""The desired state that agents receive, and changes of it at one time, on every database."""

from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from agent_flows.report import FlowName
from agent_flows.spec import AddressGroupSpec, DesiredState, Member, NetworkSpec, NetworkType
from lab.model import new_id
from lab.server_parts import FakeAgent, Server, together

MakePort = Callable[..., str]


def test_an_agent_gets_its_ports_and_every_group_they_refer_to_once(
    server: Server, agent: FakeAgent
) -> None:
    network, own, remote, offices, unrelated = (new_id() for _ in range(5))
    server.put(
        "networks", network, network_type="vlan", segmentation_id=7, physical_network="p", mtu=1400
    )
    server.put("address-groups", offices, addresses=["192.0.2.0/24", "2001:db8::/64"])
    for group in (own, remote, unrelated):
        server.put("security-groups", group, stateful=group != own)
    rules = [
        {"direction": "ingress", "protocol": "tcp", "port_range_min": 80, "port_range_max": 81},
        {"direction": "ingress", "remote_group_id": remote},
        {"direction": "ingress", "remote_group_id": own},
        {"direction": "egress", "remote_address_group_id": offices},
    ]
    server.put("security-groups", own, stateful=False, security_group_rules=rules)
    mine, elsewhere = new_id(), new_id()
    server.put(
        "ports",
        mine,
        network_id=network,
        mac_address="fa:16:3e:00:00:01",
        fixed_ips=[{"ip_address": "10.0.0.2"}, {"ip_address": "2001:DB8:0::1"}],
        allowed_address_pairs=[
            {"ip_address": "10.9.0.0/16"},
            {"ip_address": "0.0.0.0/0", "mac_address": "fa:16:3e:00:00:99"},
        ],
        security_groups=[own],
        device_owner="compute:nova",
        **{"binding:host_id": "host-a"},
    )
    server.put(
        "ports",
        elsewhere,
        network_id=network,
        mac_address="fa:16:3e:00:00:02",
        fixed_ips=[{"ip_address": "10.0.0.3"}],
        security_groups=[remote, unrelated],
        **{"binding:host_id": "host-b"},
    )

    desired = agent.specs()
    assert set(desired.ports) == {mine}
    assert set(desired.security_groups) == {own, remote}
    port = desired.ports[mine]
    assert port.network == NetworkSpec(network, NetworkType.VLAN, 7, "p", 1400)
    assert port.fixed_ips == (ip_address("10.0.0.2"), ip_address("2001:db8::1"))
    assert [str(pair.ip_address) for pair in port.allowed_address_pairs] == [
        "10.9.0.0/16",
        "0.0.0.0/0",
    ]
    assert port.security_groups == (own,)
    assert not desired.security_groups[own].stateful
    assert len(desired.security_groups[own].rules) == 4
    assert set(desired.security_groups[own].members) == {
        Member(ip_network("10.0.0.2"), "fa:16:3e:00:00:01"),
        Member(ip_network("2001:db8::1"), "fa:16:3e:00:00:01"),
        Member(ip_network("10.9.0.0/16"), "fa:16:3e:00:00:01"),
        Member(ip_network("0.0.0.0/0"), "fa:16:3e:00:00:99"),
    }
    assert desired.security_groups[remote].members == (
        Member(ip_network("10.0.0.3"), "fa:16:3e:00:00:02"),
    )
    networks = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/64"))
    assert desired.address_groups == {offices: AddressGroupSpec(offices, networks)}


def test_only_a_port_that_is_asked_for_by_id_is_expected_to_be_reported(
    server: Server, agent: FakeAgent, make_port: MakePort
) -> None:
    one, other = make_port(), make_port()
    agent.send(agent.report(one, FlowName.UNWIRE), agent.report(other, FlowName.UNWIRE))
    agent.specs()
    assert server.state(one) == ("DOWN", "ABSENT")
    agent.specs(one, new_id())
    assert server.state(one) == ("DOWN", "SYNCING")
    assert server.state(other) == ("DOWN", "ABSENT")


def test_ports_made_together_in_one_group_see_each_other(
    server: Server,
    agent: FakeAgent,
    another: Callable[..., Server],
    make_port: MakePort,
    group: str,
) -> None:
    workers = [another() for _ in range(3)]
    together(
        *(lambda worker=worker: [make_port(on=worker) for _ in range(8)] for worker in workers)
    )
    desired = agent.specs()
    assert len(desired.ports) == 24
    assert len(desired.security_groups[group].members) == 24
    # Made with its rule at revision 2, and each member raised it once.
    assert desired.security_groups[group].revision == 26


def test_of_two_that_want_one_address_one_gets_it(
    server: Server, another: Callable[..., Server], make_port: MakePort
) -> None:
    other = another()
    first = make_port()
    network = server.show("ports", first)["network_id"]
    for number in range(10):
        answers: list[int] = []

        def put(on: Server, mac: int, number: int = number, answers: list[int] = answers) -> None:
            answer = on.try_put(
                "ports",
                new_id(),
                network_id=network,
                mac_address=f"fa:16:3e:01:{number:02x}:{mac:02x}",
                fixed_ips=[{"ip_address": f"10.1.0.{number + 1}"}],
            )
            answers.append(answer.status_code)

        together(lambda put=put: put(server, 1), lambda put=put: put(other, 2))
        assert sorted(answers) == [201, 409]


def test_of_two_that_make_one_port_one_creates_and_one_replaces(
    server: Server, another: Callable[..., Server], make_port: MakePort
) -> None:
    other = another()
    network = server.show("ports", make_port())["network_id"]
    for number in range(10):
        body = {"network_id": network, "mac_address": f"fa:16:3e:02:00:{number:02x}"}
        port, answers = new_id(), []

        def put(
            on: Server,
            port: str = port,
            body: dict[str, Any] = body,
            answers: list[int] = answers,
        ) -> None:
            answers.append(on.try_put("ports", port, **body).status_code)

        together(lambda put=put: put(server), lambda put=put: put(other))
        assert sorted(answers) == [200, 201]


def test_a_report_and_a_new_rule_at_one_time_never_leave_an_old_proof(
    another: Callable[..., Server], server: Server, make_port: MakePort, group: str
) -> None:
    taking, writing = another(), server
    agent = FakeAgent(taking, "host-a")
    port = make_port()
    for number in range(1, 25):
        report = agent.report(port)
        rules = [
            {"direction": "egress", "protocol": "tcp", "port_range_min": n, "port_range_max": n}
            for n in range(1, number + 1)
        ]
        together(
            lambda report=report: agent.send(report),
            lambda rules=rules: writing.put("security-groups", group, security_group_rules=rules),
        )
        # Whichever came first: the rule is newer than what was proven.
        assert server.show("ports", port)["sync_state"] == "SYNCING"
        agent.wire(port)
        assert server.state(port) == ("ACTIVE", "IN_SYNC")


def test_a_report_and_a_new_member_at_one_time_never_leave_an_old_proof(
    another: Callable[..., Server], server: Server, make_port: MakePort
) -> None:
    taking = another()
    agent = FakeAgent(taking, "host-a")
    port = make_port()
    agent.wire(port)
    for _ in range(12):
        report = agent.report(port)
        together(lambda report=report: agent.send(report), make_port)
        assert server.show("ports", port)["sync_state"] == "SYNCING"
        agent.wire(port)
        assert server.state(port) == ("ACTIVE", "IN_SYNC")


@pytest.mark.parametrize("what", ["rules", "members"])
def test_a_revision_is_never_newer_than_what_comes_with_it(
    server: Server,
    another: Callable[..., Server],
    make_port: MakePort,
    group: str,
    what: str,
) -> None:
    reading = FakeAgent(another(), "host-a")
    make_port()
    seen: list[DesiredState] = []
    allow = {"direction": "ingress", "remote_group_id": group}

    def change() -> None:
        for number in range(1, 13):
            if what == "members":
                make_port()
            else:
                more = {"protocol": "udp", "port_range_min": number, "port_range_max": number}
                rules = [allow, {"direction": "egress", **more}]
                server.put("security-groups", group, security_group_rules=rules)

    together(change, lambda: [seen.append(reading.specs()) for _ in range(20)])
    for state in [*seen, reading.specs()]:
        spec = state.security_groups[group]
        newest = (
            len(spec.members)
            if what == "members"
            else max((rule.port_range_min or 0) for rule in spec.rules)
        )
        # Revision 2 has the rule, 3 the first member, then one revision a step.
        assert newest >= spec.revision - (2 if what == "members" else 3)
