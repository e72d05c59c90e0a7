"""Packets sent without a pause while rules change, and what must and must not arrive of them.

A round sends one packet of every probe and then a mark from every VM, which no
rule can stop. The switch takes the frames of a port in the order they came, so
once the marks have arrived every packet before them has been decided: what is
missing then was dropped. The answers of established connections follow in the
same way. Everything is judged by the states of the rules that were in force,
or coming into force, while the round went on.
"""

import contextlib
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from lab import frames
from lab.process import wait_until
from lab.traffic import Wire
from lab.vm import Vm
from tests.functional.packets.verdicts import Probe, Verdict, must_not_pass, must_pass

UDP, TCP = 17, 6
_ARP = 0x0806
_MAGIC = b"afup"
# Magic, probe, whether it is an answer, round, and the complements of round and source port:
# a packet's checksum is the same in every round.
_TAG = struct.Struct("!4sHHIIH")
_MARK = struct.Struct("!4sI")
_FIRST_NUMBERS = (1000, 5000)
_BOUND = 20.0
"""Seconds after which a switch that forwards no marks is given up."""
_STRAGGLERS = 10.0
"""Seconds for packets decided before the marks, but sent on after them: a batch leaves the
switch port by port, and a machine that does much else may take it off the processor in between."""


class History:
    """The states of the rules. ``settled`` is the newest the switch has followed for certain,
    the last one the newest that may have come into force."""

    def __init__(self, first: Sequence[Verdict]) -> None:
        self._states = [tuple(first)]
        self.settled = 0

    @property
    def newest(self) -> int:
        return len(self._states) - 1

    def begin(self, state: Sequence[Verdict]) -> None:
        self._states.append(tuple(state))

    def settle(self) -> None:
        self.settled = self.newest

    def of(self, probe: int, since: int) -> list[Verdict]:
        return [state[probe] for state in self._states[since:]]


class _Packet:
    """A probe's packet, or the answer to it, but for the round."""

    def __init__(self, probe: Probe, macs: dict[str, str], *, answer: bool) -> None:
        self.probe = probe
        self.from_, to = probe.ports[::-1] if answer else probe.ports
        addresses = probe.ips[::-1] if answer else probe.ips
        self._fixed_port = 10000 + probe.number if probe.established else 0
        tag = self._tag(0, answer, 0)
        ports = (probe.destination_port, self._fixed_port)
        ports = ports if answer else ports[::-1]
        ends = (macs[self.from_], macs[to]), addresses, ports
        if probe.protocol == UDP:
            self._frame = frames.udp(*ends, tag)
        elif probe.established:
            numbers = _FIRST_NUMBERS[::-1] if answer else _FIRST_NUMBERS
            self._frame = frames.tcp(*ends, frames.PSH | frames.ACK, numbers, payload=tag)
        else:
            self._frame = frames.tcp(*ends, frames.SYN, (_FIRST_NUMBERS[0], 0), payload=tag)
        self._answer = answer
        self._tag_at = self._frame.index(_MAGIC)
        self._port_at = self._tag_at - (8 if probe.protocol == UDP else 20)

    def _tag(self, number: int, answer: bool, source_port: int) -> bytes:
        return _TAG.pack(
            _MAGIC, self.probe.number, answer, number, number ^ 0xFFFFFFFF, source_port ^ 0xFFFF
        )

    def of(self, number: int) -> bytes:
        """A packet of an established connection has always the same ports, any other new ones."""
        source_port = 0 if self.probe.established else 20000 + number % 40000
        frame = bytearray(self._frame)
        if source_port:
            frame[self._port_at : self._port_at + 2] = source_port.to_bytes(2)
        frame[self._tag_at : self._tag_at + _TAG.size] = self._tag(
            number, self._answer, source_port
        )
        return bytes(frame)


class Rounds:
    """Rounds between ``vms``, judged by ``history``; ``witness`` gets the marks."""

    def __init__(
        self, vms: Sequence[Vm], witness: Vm, probes: Sequence[Probe], history: History
    ) -> None:
        macs = {vm.port_id: vm.mac for vm in vms}
        self._probes, self._history = probes, history
        self._wires: dict[str, Wire] = {vm.port_id: vm.wire() for vm in vms}
        self._witness = witness.wire()
        self._marks = {
            vm.port_id: bytearray(frames.mac_bytes(witness.mac))
            + frames.arp_request(vm.mac, (vm.mac, vm.ip), witness.ip)[6:]
            for vm in vms
        }
        self._requests = [_Packet(probe, macs, answer=False) for probe in probes]
        self._answers = [_Packet(probe, macs, answer=True) for probe in probes if probe.established]
        self._macs = macs
        self._marks_sent = 0
        self._arrived: set[tuple[int, bool]] = set()
        self._number = 0
        self._forbidden: dict[int, set[tuple[int, bool]]] = {}
        self.gaps: list[str] = []
        self.leaks: list[str] = []
        self.judged: Counter[str] = Counter()

    def shake_hands(self) -> None:
        """Open the established connections; everything must be allowed just now."""
        probes = [probe for probe in self._probes if probe.established]
        for flags, answer in (
            (frames.SYN, False), (frames.SYN | frames.ACK, True), (frames.ACK, False),
        ):  # fmt: skip
            for probe in probes:
                self._send_handshake(probe, flags, answer=answer)
            self._mark()
        self.one()
        assert not self.gaps, self.gaps

    def _send_handshake(self, probe: Probe, flags: int, *, answer: bool) -> None:
        ours, theirs = _FIRST_NUMBERS
        numbers = {
            frames.SYN: (ours - 1, 0), frames.SYN | frames.ACK: (theirs - 1, ours),
            frames.ACK: (ours, theirs),
        }[flags]  # fmt: skip
        ports = (10000 + probe.number, probe.destination_port)
        ends = [tuple(self._macs[port] for port in probe.ports), probe.ips, ports]
        source, target = probe.ports
        if answer:
            ends, source = [pair[::-1] for pair in ends], target
        made = (
            frames.udp(*ends, b"") if probe.protocol == UDP else frames.tcp(*ends, flags, numbers)
        )
        self._wires[source].send(made)

    def one(self) -> None:
        """One round: every probe, then the answers."""
        since = self._history.settled
        self._number += 1
        self._arrived.clear()
        for packet in self._requests:
            self._wires[packet.from_].send(packet.of(self._number))
        self._mark()
        self._judge([(probe, False) for probe in self._probes], since)
        answered = {number for number, answer in self._arrived if not answer}
        # Also to what did not arrive: the connection is cut, so nothing passes the other way.
        for packet in self._answers:
            self._wires[packet.from_].send(packet.of(self._number))
        self._mark()
        self._judge([(probe, True) for probe in self._probes if probe.established], since, answered)

    def _mark(self) -> None:
        """Until the switch has decided everything sent before."""
        self._marks_sent += 1
        mark = _MARK.pack(_MAGIC, self._marks_sent)
        for port_id, frame in self._marks.items():
            frame[42 : 42 + _MARK.size] = mark
            self._wires[port_id].send(bytes(frame))
        missing = len(self._marks)
        deadline = time.monotonic() + _BOUND
        while missing:
            self._witness.wait(0.1)
            missing -= sum(frame[42 : 42 + _MARK.size] == mark for frame in self._witness.take())
            assert time.monotonic() < deadline, "ARP, which needs no rule, does not pass"
        self._collect()

    def _collect(self) -> None:
        for wire in self._wires.values():
            for frame in wire.take():
                at = frame.find(_MAGIC)
                if at < 0 or len(frame) < at + _TAG.size or frame[12:14] == b"\x08\x06":
                    continue
                _, number, answer, round_, *_ = _TAG.unpack_from(frame, at)
                seen = (number, bool(answer))
                if round_ == self._number:
                    self._arrived.add(seen)
                if seen in self._forbidden.get(round_, ()):
                    self.leaks.append(self._described(*seen, round_))

    def _judge(
        self, sent: Sequence[tuple[Probe, bool]], since: int, answered: set[int] | None = None
    ) -> None:
        """``answered`` are the probes whose packet has arrived in this round."""
        due, forbidden = set(), self._forbidden.setdefault(self._number, set())
        for probe, answer in sent:
            states = self._history.of(probe.number, since)
            if must_pass(states) and (answered is None or probe.number in answered):
                due.add((probe.number, answer))
            elif must_not_pass(states):
                forbidden.add((probe.number, answer))
        self._forbidden.pop(self._number - 3, None)
        self.judged["allowed"] += len(due)
        self.judged["forbidden"] += len(forbidden)
        self.leaks += [self._described(*seen, self._number) for seen in self._arrived & forbidden]
        deadline = time.monotonic() + _STRAGGLERS
        while due - self._arrived and time.monotonic() < deadline:
            time.sleep(0.002)
            self._collect()
        self.gaps += [self._described(*seen, self._number) for seen in due - self._arrived]

    def _described(self, number: int, answer: bool, round_: int) -> str:
        kind = "answer to" if answer else "packet of"
        newest = self._history.newest
        return (
            f"round {round_}, states {self._history.settled} to {newest}: {kind} "
            f"{self._probes[number]}"
        )

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        """Round after round, in a thread, for as long as the block lasts."""
        enough = threading.Event()

        def run() -> None:
            while not enough.is_set():
                self.one()

        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(run)
            try:
                yield
            finally:
                enough.set()
                running.result(2 * _BOUND)

    def wait_for_round(self) -> None:
        """Until a round that begins now has ended."""
        wanted = self._number + 2
        wait_until(lambda: self._number >= wanted or bool(self.gaps), _BOUND, "a round", 0.001)
