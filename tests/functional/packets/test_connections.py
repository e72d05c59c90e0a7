"""What belongs to a connection, what does not, and how a rule that goes cuts it."""

import ipaddress
import itertools
import struct

import pytest

from agent_flows.openflow.pipeline import CUT_MARK
from agent_flows.spec import AddressPair
from lab import frames
from lab.model import everything, group, ip, rule
from lab.vm import Vm
from tests.functional.packets.world import World

HTTP = rule(protocol="tcp", port=80)
_SEQUENCE = struct.Struct("!I")
_CLIENT_PORTS = itertools.count(3001)


class TestReplies:
    @pytest.mark.parametrize("version", [4, 6])
    @pytest.mark.parametrize("protocol", ["tcp", "udp"])
    def test_replies_need_no_rule(
        self, world: World, guarded: Vm, outside: Vm, protocol: str, version: int
    ) -> None:
        world.wire(guarded, group(*everything("egress")))
        assert world.reaches(guarded, outside, 443, protocol, version=version)
        world.wire(guarded, group(*everything("ingress")))
        assert world.reaches(outside, guarded, 443, protocol, version=version)

    @pytest.mark.parametrize("version", [4, 6])
    def test_an_icmp_error_about_a_connection_is_related_to_it(
        self, world: World, sender: Vm, guarded: Vm, version: int
    ) -> None:
        """The server's kernel refuses the datagram; neither port has a rule for the ICMP error."""
        world.wire(guarded, group(rule(protocol="udp", ethertype=f"IPv{version}")))
        connection = sender.open(ip(guarded, version), 5353, "udp")
        connection.send(b"is anybody there?")
        with pytest.raises(ConnectionRefusedError):
            connection.receive(timeout=5)

    @pytest.mark.parametrize("version", [4, 6])
    def test_an_icmp_error_about_nothing_is_related_to_nothing(
        self, world: World, guarded: Vm, outside: Vm, version: int
    ) -> None:
        world.wire(guarded, group(*everything("egress")))
        type_ = 3 if version == 4 else 1
        quoted = _datagram(guarded, outside, 5999, version)
        ends = (outside.mac, guarded.mac), (ip(outside, version), ip(guarded, version))
        assert not world.passes(outside, guarded, frames.icmp(*ends, type_, 3, bytes(4) + quoted))
        # The same words are related once the datagram they quote was sent.
        world.passes(
            guarded, outside, frames.udp(*_ends(guarded, outside, version), (5998, 5999), b"hello")
        )
        assert world.passes(outside, guarded, frames.icmp(*ends, type_, 3, bytes(4) + quoted))


def _ends(source: Vm, target: Vm, version: int) -> tuple[tuple[str, str], tuple[str, str]]:
    return (source.mac, target.mac), (ip(source, version), ip(target, version))


def _datagram(source: Vm, target: Vm, port: int, version: int) -> bytes:
    """From its IP header on, as an ICMP error quotes it."""
    return frames.udp(*_ends(source, target, version), (port - 1, port), b"hello")[14:]


class TestCut:
    @pytest.mark.parametrize("version", [4, 6])
    @pytest.mark.parametrize("protocol", ["tcp", "udp"])
    def test_removed_ingress_rule_cuts_the_connection_and_mends_it_when_it_is_back(
        self, world: World, sender: Vm, guarded: Vm, protocol: str, version: int
    ) -> None:
        allowed = rule(protocol=protocol, port=7000, ethertype=f"IPv{version}")
        rules = group(allowed)
        world.wire(guarded, rules)
        world.serve(guarded, 7000, protocol)
        connection = sender.open(ip(guarded, version), 7000, protocol)
        assert connection.ask() == "guarded"
        world.replace(rules)
        assert connection.ask(timeout=0.4) is None
        assert not world.syn_passes(sender, guarded, 7000, version=version)
        world.replace(rules, allowed)
        assert connection.ask(timeout=5) == "guarded"

    def test_removed_egress_rule_cuts_the_connection_and_mends_it_when_it_is_back(
        self, world: World, guarded: Vm, outside: Vm
    ) -> None:
        rules = group(rule("egress", protocol="tcp"))
        world.wire(guarded, rules)
        world.serve(outside, 443)
        connection = guarded.open(outside.ip, 443)
        assert connection.ask() == "outside"
        world.replace(rules)
        assert connection.ask(timeout=0.4) is None
        world.replace(rules, rule("egress", protocol="tcp", port=443))
        assert connection.ask(timeout=5) == "outside"

    def test_a_cut_deletes_no_entry_of_conntrack(
        self, world: World, sender: Vm, guarded: Vm
    ) -> None:
        """``conntrack -D`` reaches the kernel, which does not have these connections: the switch
        keeps a table of its own, where the cut one remains, with a mark."""
        rules = group(HTTP)
        world.wire(guarded, rules)
        world.serve(guarded, 80)
        connection = sender.open(guarded.ip, 80)
        assert connection.ask() == "guarded"
        source = f"src={sender.ip},dst={guarded.ip},sport={connection.local_port},dport=80"

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
    def stranger(self, sender: Vm, guarded: Vm) -> str:
        """An address that the sender's kernel does not have: only the test answers for it."""
        address = "10.0.0.250"
        guarded.namespace.ip("neigh", "replace", address, "lladdr", sender.mac, "dev", "eth0")
        return address

    def test_a_segment_outside_the_window_is_dropped_and_one_inside_passes(
        self, world: World, sender: Vm, guarded: Vm, stranger: str
    ) -> None:
        world.wire(guarded, group(*everything("ingress"), *everything("egress")))
        world.wire(
            sender, group(*everything("egress")),
            allowed_address_pairs=(AddressPair(ipaddress.ip_network(f"{stranger}/32")),),
        )  # fmt: skip
        world.serve(guarded, 80)
        ports = next(_CLIENT_PORTS), 80
        ends = (sender.mac, guarded.mac), (stranger, guarded.ip)
        answers = world.wire_of(sender)
        answers.take()
        assert world.passes(sender, guarded, frames.tcp(*ends, ports, frames.SYN, (1000, 0)))
        theirs = _sequence_of_answer(answers.take(), ports)
        numbers = 1001, theirs + 1
        assert world.passes(sender, guarded, frames.tcp(*ends, ports, frames.ACK, numbers))
        for beside in (10**6, 10**9):
            forged = frames.tcp(
                *ends,
                ports,
                frames.PSH | frames.ACK,
                (1001 + beside, theirs + 1),
                payload=b"forged",
            )
            assert not world.passes(sender, guarded, forged)
        honest = frames.tcp(*ends, ports, frames.PSH | frames.ACK, numbers, payload=b"honest")
        assert world.passes(sender, guarded, honest)

    def test_a_bad_checksum_is_no_packet_of_a_connection(
        self, world: World, sender: Vm, guarded: Vm
    ) -> None:
        world.wire(guarded, group(*everything("ingress")))
        good = frames.udp(*_ends(sender, guarded, 4), (2200, 53), b"so much that nothing is padded")
        bad = good[:-1] + b"D"
        assert not world.passes(sender, guarded, bad)
        assert world.passes(sender, guarded, good)


def _sequence_of_answer(seen: list[bytes], ports: tuple[int, int]) -> int:
    wanted = struct.pack("!HH", *ports[::-1])
    (answer,) = [frame for frame in seen if frame[34:38] == wanted and frame[47] & frames.SYN]
    number: int = _SEQUENCE.unpack_from(answer, 38)[0]
    return number
