"""Cases 8, 9, 17, 22 and 24: what belongs to a connection, what does not, and how one is cut."""

import ipaddress
import itertools
import struct

import pytest

from agent_flows.openflow.pipeline import CUT_MARK
from agent_flows.spec import AddressPair
from lab import frames
from lab.model import everything, group, ip, rule
from lab.vm import Vm
from tests.functional.semantics.world import World

HTTP = rule(protocol="tcp", port=80)
_SEQUENCE = struct.Struct("!I")
_CLIENT_PORTS = itertools.count(3001)


class TestReplies:
    @pytest.mark.parametrize("version", [4, 6])
    @pytest.mark.parametrize("protocol", ["tcp", "udp"])
    def test_replies_need_no_rule(
        self, world: World, bert: Vm, otto: Vm, protocol: str, version: int
    ) -> None:
        world.wire(bert, group(*everything("egress")))
        assert world.reaches(bert, otto, 443, protocol, version=version)
        world.wire(bert, group(*everything("ingress")))
        assert world.reaches(otto, bert, 443, protocol, version=version)

    def test_what_looks_like_a_reply_is_none(
        self, world: World, anna: Vm, bert: Vm, otto: Vm
    ) -> None:
        world.wire(bert, group(HTTP))
        ends = (bert.mac, otto.mac), (bert.ip, otto.ip)
        answer = frames.tcp(*ends, (80, 45678), frames.SYN | frames.ACK, (1, 1))
        assert not world.passes(bert, otto, answer)
        assert not world.udp_passes(bert, anna, 45678, source_port=80)

    @pytest.mark.parametrize("version", [4, 6])
    def test_an_icmp_error_about_a_connection_is_related_to_it(
        self, world: World, anna: Vm, bert: Vm, version: int
    ) -> None:
        """The server's kernel says that nobody listens, and neither port has a rule for that."""
        world.wire(bert, group(rule(protocol="udp", ethertype=f"IPv{version}")))
        connection = anna.open(ip(bert, version), 5353, "udp")
        connection.send(b"is anybody there?")
        with pytest.raises(ConnectionRefusedError):
            connection.receive(timeout=5)

    @pytest.mark.parametrize("version", [4, 6])
    def test_an_icmp_error_about_nothing_is_related_to_nothing(
        self, world: World, bert: Vm, otto: Vm, version: int
    ) -> None:
        world.wire(bert, group(*everything("egress")))
        type_ = 3 if version == 4 else 1
        quoted = _datagram(bert, otto, 5999, version)
        ends = (otto.mac, bert.mac), (ip(otto, version), ip(bert, version))
        assert not world.passes(otto, bert, frames.icmp(*ends, type_, 3, bytes(4) + quoted))
        # The same words are related once the datagram they quote was sent.
        world.passes(bert, otto, frames.udp(*_ends(bert, otto, version), (5998, 5999), b"hello"))
        assert world.passes(otto, bert, frames.icmp(*ends, type_, 3, bytes(4) + quoted))


def _ends(source: Vm, target: Vm, version: int) -> tuple[tuple[str, str], tuple[str, str]]:
    return (source.mac, target.mac), (ip(source, version), ip(target, version))


def _datagram(source: Vm, target: Vm, port: int, version: int) -> bytes:
    """From its IP header on, as an ICMP error quotes it."""
    return frames.udp(*_ends(source, target, version), (port - 1, port), b"hello")[14:]


class TestCut:
    @pytest.mark.parametrize("version", [4, 6])
    @pytest.mark.parametrize("protocol", ["tcp", "udp"])
    def test_a_removed_ingress_rule_cuts_and_the_same_rule_again_mends(
        self, world: World, anna: Vm, bert: Vm, protocol: str, version: int
    ) -> None:
        allowed = rule(protocol=protocol, port=7000, ethertype=f"IPv{version}")
        rules = group(allowed)
        world.wire(bert, rules)
        world.serve(bert, 7000, protocol)
        connection = anna.open(ip(bert, version), 7000, protocol)
        assert connection.ask() == "bert"
        world.replace(rules)
        assert connection.ask(timeout=0.4) is None
        assert not world.syn_passes(anna, bert, 7000, version=version)
        world.replace(rules, allowed)
        assert connection.ask(timeout=5) == "bert"

    def test_a_removed_egress_rule_cuts_and_the_same_rule_again_mends(
        self, world: World, bert: Vm, otto: Vm
    ) -> None:
        rules = group(rule("egress", protocol="tcp"))
        world.wire(bert, rules)
        world.serve(otto, 443)
        connection = bert.open(otto.ip, 443)
        assert connection.ask() == "otto"
        world.replace(rules)
        assert connection.ask(timeout=0.4) is None
        world.replace(rules, rule("egress", protocol="tcp", port=443))
        assert connection.ask(timeout=5) == "otto"

    def test_a_cut_connection_is_cut_for_what_the_server_has_to_say_too(
        self, world: World, anna: Vm, bert: Vm
    ) -> None:
        rules = group(rule(protocol="udp"))
        world.wire(bert, rules)
        there = frames.udp(*_ends(anna, bert, 4), (6100, 6200), b"a question")
        back = frames.udp(*_ends(bert, anna, 4), (6200, 6100), b"the answer")
        assert world.passes(anna, bert, there)
        assert world.passes(bert, anna, back)
        world.replace(rules)
        assert not world.passes(anna, bert, there)
        assert not world.passes(bert, anna, back)
        world.replace(rules, rule(protocol="udp"))
        assert world.passes(anna, bert, there)
        assert world.passes(bert, anna, back)

    def test_a_connection_that_another_rule_allows_is_not_cut(
        self, world: World, anna: Vm, bert: Vm
    ) -> None:
        rules = group(HTTP, rule(protocol="tcp", port_range_min=1, port_range_max=1024))
        world.wire(bert, rules)
        world.serve(bert, 80)
        connection = anna.open(bert.ip, 80)
        assert connection.ask() == "bert"
        world.replace(rules, HTTP)
        assert connection.ask() == "bert"
        world.replace(rules, rule(remote_ip_prefix="10.0.0.0/8"))
        assert connection.ask() == "bert"

    def test_a_cut_needs_nobody_to_delete_connections_from_outside(
        self, world: World, anna: Vm, bert: Vm
    ) -> None:
        """``conntrack -D`` speaks to the kernel, which has never heard of these connections: the
        switch keeps a table of its own, where the cut one still stands, and is marked."""
        rules = group(HTTP)
        world.wire(bert, rules)
        world.serve(bert, 80)
        connection = anna.open(bert.ip, 80)
        assert connection.ask() == "bert"
        source = f"src={anna.ip},dst={bert.ip},sport={connection.local_port},dport=80"

        def entries() -> list[str]:
            return [line for line in world.conntrack() if source in line]

        (before,) = entries()
        assert "mark=" not in before
        world.replace(rules)
        assert connection.ask(timeout=0.4) is None
        (after,) = entries()
        assert f"mark={CUT_MARK}" in after
        assert "ESTABLISHED" in after
        world.switch.appctl("dpctl/flush-conntrack")
        assert connection.ask(timeout=0.4) is None


class TestInvalid:
    @pytest.fixture
    def stranger(self, anna: Vm, bert: Vm) -> str:
        """An address of anna's that her kernel does not know: only the test speaks for it."""
        address = "10.0.0.250"
        bert.namespace.ip("neigh", "replace", address, "lladdr", anna.mac, "dev", "eth0")
        return address

    def test_an_impossible_first_segment_is_dropped_whatever_the_rules_say(
        self, world: World, anna: Vm, bert: Vm
    ) -> None:
        world.wire(bert, group(*everything("ingress")))
        ends = _ends(anna, bert, 4)
        for flags in (frames.SYN | frames.FIN, frames.SYN | frames.RST, 0):
            assert not world.passes(anna, bert, frames.tcp(*ends, (2000 + flags, 80), flags))
        assert world.passes(anna, bert, frames.tcp(*ends, (2100, 80), frames.SYN))

    def test_a_segment_outside_the_window_is_dropped_and_one_inside_passes(
        self, world: World, anna: Vm, bert: Vm, stranger: str
    ) -> None:
        world.wire(bert, group(*everything("ingress"), *everything("egress")))
        world.wire(
            anna, group(*everything("egress")),
            allowed_address_pairs=(AddressPair(ipaddress.ip_network(f"{stranger}/32")),),
        )  # fmt: skip
        world.serve(bert, 80)
        ports = next(_CLIENT_PORTS), 80
        ends = (anna.mac, bert.mac), (stranger, bert.ip)
        answers = world.wire_of(anna)
        answers.take()
        assert world.passes(anna, bert, frames.tcp(*ends, ports, frames.SYN, (1000, 0)))
        theirs = _sequence_of_answer(answers.take(), ports)
        numbers = 1001, theirs + 1
        assert world.passes(anna, bert, frames.tcp(*ends, ports, frames.ACK, numbers))
        for beside in (10**6, 10**9):
            forged = frames.tcp(
                *ends,
                ports,
                frames.PSH | frames.ACK,
                (1001 + beside, theirs + 1),
                payload=b"forged",
            )
            assert not world.passes(anna, bert, forged)
        honest = frames.tcp(*ends, ports, frames.PSH | frames.ACK, numbers, payload=b"honest")
        assert world.passes(anna, bert, honest)

    def test_a_bad_checksum_is_no_packet_of_a_connection(
        self, world: World, anna: Vm, bert: Vm
    ) -> None:
        world.wire(bert, group(*everything("ingress")))
        good = frames.udp(*_ends(anna, bert, 4), (2200, 53), b"so much that nothing is padded")
        bad = good[:-1] + b"D"
        assert not world.passes(anna, bert, bad)
        assert world.passes(anna, bert, good)


def _sequence_of_answer(seen: list[bytes], ports: tuple[int, int]) -> int:
    wanted = struct.pack("!HH", *ports[::-1])
    (answer,) = [frame for frame in seen if frame[34:38] == wanted and frame[47] & frames.SYN]
    number: int = _SEQUENCE.unpack_from(answer, 38)[0]
    return number
