"""Ports of stateless groups: no connections, so both directions need a rule; and their peers with
stateful groups, whose connections work as ever."""

import pytest

from agent_flows.engine.task import PortErrors
from lab.model import egress_to_anywhere, group, rule
from tests.functional.secgroups import packets
from tests.functional.secgroups.host import BOTH_HOMES, Host, Vm, outsider

pytestmark = BOTH_HOMES

HTTP = rule(protocol="tcp", port_range_min=80, port_range_max=80)
HTTP_ANSWERS_OUT = rule(
    "egress", protocol="tcp", source_port_range_min=80, source_port_range_max=80
)
HTTP_ANSWERS_IN = rule(protocol="tcp", source_port_range_min=80, source_port_range_max=80)
HTTP_OUT = rule("egress", protocol="tcp", port_range_min=80, port_range_max=80)


def wire(host: Host, vm: Vm, *rules: dict[str, object], stateful: bool = False) -> None:
    host.port(vm, group(*rules, stateful=stateful))
    host.wire(vm)


@pytest.fixture
def vm(host: Host) -> Vm:
    """Stateless, and nothing is allowed yet."""
    return host.boot(1)


@pytest.fixture
def peer(host: Host) -> Vm:
    """A stateful port on the same host that serves HTTP and may send anything."""
    made = host.boot(2)
    wire(host, made, HTTP, *egress_to_anywhere(), stateful=True)
    return made


def tracked(host: Host) -> bool:
    """Whether conntrack knows of any connection."""
    return bool(host.switch.appctl("dpctl/dump-conntrack"))


class TestWithTheWorld:
    def test_ingress_by_rule(self, host: Host, vm: Vm) -> None:
        wire(host, vm, HTTP)
        assert host.tcp(outsider(), vm, 80)
        assert not host.tcp(outsider(), vm, 81)

    def test_egress_by_rule(self, host: Host, vm: Vm) -> None:
        wire(host, vm, HTTP_OUT)
        assert host.tcp(vm, outsider(), 80)
        assert not host.tcp(vm, outsider(), 81)

    def test_answers_need_a_rule(self, host: Host, vm: Vm) -> None:
        wire(host, vm, HTTP)
        assert host.tcp(outsider(), vm, 80)
        assert not host.tcp_reply(vm, outsider(), 80)
        wire(host, vm, HTTP, HTTP_ANSWERS_OUT)
        assert host.tcp_reply(vm, outsider(), 80)

    def test_answers_to_what_it_sent_need_a_rule(self, host: Host, vm: Vm) -> None:
        wire(host, vm, HTTP_OUT)
        assert host.tcp(vm, outsider(), 80)
        assert not host.tcp_reply(outsider(), vm, 80)
        wire(host, vm, HTTP_OUT, HTTP_ANSWERS_IN)
        assert host.tcp_reply(outsider(), vm, 80)

    def test_no_connection_is_kept(self, host: Host, vm: Vm) -> None:
        wire(host, vm, rule(), rule(ethertype="IPv6"), *egress_to_anywhere())
        assert host.connect(outsider(), vm, 80)
        assert host.udp(vm, outsider(), 53, v6=True)
        assert not tracked(host)

    def test_what_conntrack_would_call_invalid_passes_by_rule(self, host: Host, vm: Vm) -> None:
        wire(host, vm, HTTP)
        assert host.tcp(outsider(), vm, 80, "syn|fin")

    def test_what_needs_no_rule_needs_none(self, host: Host, vm: Vm) -> None:
        wire(host, vm)
        macs = (outsider().mac, vm.mac)
        offer = packets.udp(macs, (outsider().ip, vm.ip), (67, 68))
        assert host.sent(outsider(), vm, offer)
        assert host.icmp(outsider(), vm, 135, v6=True)
        asked = packets.arp((vm.mac, packets.BROADCAST), (vm.mac, vm.ip), outsider().ip)
        assert host.sent(vm, outsider(), asked)

    def test_it_speaks_as_itself_only(self, host: Host, vm: Vm) -> None:
        wire(host, vm, *egress_to_anywhere())
        assert not host.udp(vm.but(ip="10.0.0.66"), outsider(), 53)
        assert not host.udp(vm.but(mac="fa:16:3e:66:66:66"), outsider(), 53)

    def test_members_of_a_remote_group(self, host: Host, vm: Vm) -> None:
        webs = group(members=[outsider()])
        host.add(webs)
        wire(host, vm, rule(protocol="udp", remote_group_id=webs.id))
        assert host.udp(outsider(), vm, 53)
        assert not host.udp(outsider().but(ip="203.0.113.98"), vm, 53)


class TestWithAStatefulPort:
    def test_it_is_the_client(self, host: Host, vm: Vm, peer: Vm) -> None:
        wire(host, vm, HTTP_OUT)
        assert host.tcp(vm, peer, 80)
        assert not host.tcp(vm, peer, 81)
        assert not host.tcp_reply(peer, vm, 80)
        wire(host, vm, HTTP_OUT, HTTP_ANSWERS_IN)
        assert host.connect(vm, peer, 80)

    def test_it_is_the_server(self, host: Host, vm: Vm, peer: Vm) -> None:
        wire(host, vm, HTTP)
        assert host.tcp(peer, vm, 80)
        assert not host.tcp(peer, vm, 81)
        assert not host.tcp_reply(vm, peer, 80)
        wire(host, vm, HTTP, HTTP_ANSWERS_OUT)
        assert host.connect(peer, vm, 80)
        assert host.tcp(peer, vm, 80, "ack")
        assert host.tcp_reply(vm, peer, 80, "ack")

    def test_ipv6_too(self, host: Host, vm: Vm, peer: Vm) -> None:
        dns = {"ethertype": "IPv6", "protocol": "udp"}
        wire(
            host,
            vm,
            rule(**dns, port_range_min=53, port_range_max=53),
            rule("egress", **dns, source_port_range_min=53, source_port_range_max=53),
        )
        assert host.udp(peer, vm, 53, v6=True)
        assert host.udp(vm, peer, 40000, v6=True, sport=53)
        assert not host.udp(vm, peer, 40001, v6=True, sport=53)

    def test_the_peer_gets_nothing_it_did_not_ask_for(self, host: Host, vm: Vm, peer: Vm) -> None:
        wire(host, vm, *egress_to_anywhere())
        assert not host.tcp_reply(vm, peer, 8080)
        assert not host.udp(vm, peer, 53)

    def test_connection_it_refuses_is_none(self, host: Host, vm: Vm, peer: Vm) -> None:
        wire(host, vm, HTTP_ANSWERS_OUT)
        assert not host.tcp(peer, vm, 80)
        assert not host.tcp_reply(vm, peer, 80)
        assert not tracked(host)

    def test_connection_its_peer_cuts_is_cut_and_mended_with_its_rule(
        self, host: Host, vm: Vm, peer: Vm
    ) -> None:
        wire(host, vm, HTTP, HTTP_ANSWERS_OUT)
        assert host.connect(peer, vm, 80)
        wire(host, peer, stateful=True)
        assert not host.tcp(peer, vm, 80, "ack")
        assert not host.tcp_reply(vm, peer, 80, "ack")
        wire(host, peer, *egress_to_anywhere(), stateful=True)
        assert host.tcp(peer, vm, 80, "ack")
        assert host.tcp_reply(vm, peer, 80, "ack")

    def test_connection_to_its_peer_is_cut_by_the_peers_rules(
        self, host: Host, vm: Vm, peer: Vm
    ) -> None:
        wire(host, vm, HTTP_OUT, HTTP_ANSWERS_IN)
        assert host.connect(vm, peer, 80)
        wire(host, peer, *egress_to_anywhere(), stateful=True)
        assert not host.tcp(vm, peer, 80, "ack")
        assert not host.tcp_reply(peer, vm, 80, "ack")
        wire(host, peer, HTTP, stateful=True)
        assert host.tcp(vm, peer, 80, "ack")
        assert host.tcp_reply(peer, vm, 80, "ack")

    def test_connection_of_its_peer_stands_while_its_own_rule_is_away(
        self, host: Host, vm: Vm, peer: Vm
    ) -> None:
        wire(host, vm, HTTP, HTTP_ANSWERS_OUT)
        assert host.connect(peer, vm, 80)
        wire(host, vm, HTTP_ANSWERS_OUT)
        assert not host.tcp(peer, vm, 80, "ack")
        assert host.tcp_reply(vm, peer, 80, "ack")
        wire(host, vm, HTTP, HTTP_ANSWERS_OUT)
        assert host.tcp(peer, vm, 80, "ack")


def test_two_stateless_ports_need_both_their_rules(host: Host, vm: Vm) -> None:
    server = host.boot(2)
    wire(host, vm, HTTP_OUT)
    wire(host, server, HTTP, HTTP_ANSWERS_OUT)
    assert host.tcp(vm, server, 80)
    assert not host.tcp_reply(server, vm, 80)
    wire(host, vm, HTTP_OUT, HTTP_ANSWERS_IN)
    assert host.connect(vm, server, 80)
    assert not tracked(host)


def test_port_is_switched_to_stateless_and_back(host: Host, vm: Vm) -> None:
    wire(host, vm, HTTP, stateful=True)
    assert host.connect(outsider(), vm, 80)
    wire(host, vm, HTTP)
    assert host.tcp(outsider(), vm, 80, "ack")
    assert not host.tcp_reply(vm, outsider(), 80, "ack")
    wire(host, vm, HTTP, HTTP_ANSWERS_OUT)
    assert host.tcp_reply(vm, outsider(), 80, "ack")
    wire(host, vm, HTTP, stateful=True)
    assert host.tcp(outsider(), vm, 80, "ack")
    assert host.tcp_reply(vm, outsider(), 80, "ack")
    assert not host.tcp(vm, outsider(), 40001, sport=80)


def test_stateless_and_stateful_groups_on_one_port_are_refused_by_name(host: Host, vm: Vm) -> None:
    stateless, stateful = group(HTTP, stateful=False), group(HTTP)
    host.port(vm, stateless, stateful)
    with pytest.raises(PortErrors) as raised:
        host.apply(vm)
    error = raised.value.errors[vm.id]
    assert error.type == "Conflict"
    assert f"{stateless.id} is stateless" in error.message
    assert f"{stateful.id} is stateful" in error.message


class TestMacOfSeveralPorts:
    """One stateful, one stateless: each decides by its own kind, whichever is asked first."""

    @pytest.mark.parametrize("first", [True, False], ids=["stateless first", "stateful first"])
    def test_each_decides_by_its_own_kind(self, host: Host, first: bool) -> None:
        ports = [host.boot(1), host.boot(2)]
        stateless, stateful = ports if first else ports[::-1]
        client = host.boot(3)
        virtual = client.but(mac="00:00:5e:00:01:07", ip="10.0.0.77")
        pairs = [{"ip_address": "10.0.0.77/32", "mac_address": virtual.mac}]
        host.port(stateless, group(HTTP, stateful=False), allowed_address_pairs=pairs)
        host.port(stateful, group(HTTP), allowed_address_pairs=pairs)
        host.port(client, group(*egress_to_anywhere()))
        host.wire(stateless, stateful, client)
        syn = packets.tcp((client.mac, virtual.mac), (client.ip, virtual.ip), (40000, 80), "syn")
        assert {stateless.name, stateful.name} <= host.send(client.name, syn)
        invalid = packets.tcp(
            (outsider().mac, virtual.mac), (outsider().ip, virtual.ip), (1, 80), "syn|fin"
        )
        got = host.send("uplink", packets.tagged(invalid, 1001))
        assert stateless.name in got
        assert stateful.name not in got
        answer = virtual.but(name=stateful.name)
        assert host.tcp_reply(answer, client, 80)
        assert not host.tcp_reply(virtual.but(name=stateless.name), client, 80)
