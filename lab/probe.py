"""Whether a port passes anything: valid and forged packets, both ways."""

import time
from collections.abc import Sequence

from lab import frames
from lab.traffic import Wire
from lab.vm import Vm

# The datapath forwards in well under a millisecond; whatever is going to arrive has by then.
_SETTLE_SECONDS = 0.5
_STRANGER = "fa:16:3e:99:99:99"


def _frames_from(suspect: Vm, victim: Vm, token: bytes) -> list[bytes]:
    """What ``suspect`` might send: with its own addresses and with forged ones."""
    ports = (40000, 80)
    own, theirs = (suspect.mac, suspect.ip), (victim.mac, victim.ip)
    return [
        frames.udp((own[0], theirs[0]), (own[1], theirs[1]), ports, token),
        frames.udp((own[0], theirs[0]), ("192.0.2.66", theirs[1]), ports, token),
        frames.udp((_STRANGER, theirs[0]), (own[1], theirs[1]), ports, token),
        frames.udp((own[0], frames.BROADCAST), (own[1], "255.255.255.255"), ports, token),
        frames.ethernet(own[0], theirs[0], 0x88B5, token),  # IEEE's experimental ethertype
    ]


def _questions_from(suspect: Vm, target_ip: str, pretended_ip: str) -> list[bytes]:
    return [
        frames.arp_request(suspect.mac, (suspect.mac, suspect.ip), target_ip),
        frames.arp_request(suspect.mac, (suspect.mac, pretended_ip), target_ip),
    ]


def passes_anything(suspect: Vm, others: Sequence[Vm], service: int) -> list[str]:
    """One line for each way in which ``suspect`` sent or received something.

    ``service`` is a TCP port ``suspect`` listens on and whose use its security
    groups would allow to the first of ``others``, which listens on 80 for all.
    """
    friend, *_ = others
    outbound, inbound = b"af-probe-out", b"af-probe-in"
    wires: dict[str, Wire] = {vm.name: vm.wire() for vm in others}
    own = suspect.wire()
    found: list[str] = []
    try:
        for frame in [
            *_frames_from(suspect, friend, outbound),
            *_questions_from(suspect, friend.ip, others[-1].ip),
        ]:
            own.send(frame)
        for frame in [
            *_frames_from(friend, suspect, inbound),
            *_questions_from(friend, suspect.ip, friend.ip),
        ]:
            wires[friend.name].send(frame)
        attempts = {
            f"{friend.name} reached tcp {service} of {suspect.name}": friend.connect(
                suspect.ip, service, timeout=0.5
            ),
            f"{suspect.name} reached tcp 80 of {friend.name}": suspect.connect(
                friend.ip, 80, timeout=0.5
            ),
            f"{suspect.name} got an answer to its ping": suspect.ping(friend.ip, timeout=0.5),
            f"{friend.name} got an answer to its ping": friend.ping(suspect.ip, timeout=0.5),
        }
        found += [words for words, seen in attempts.items() if seen]
        time.sleep(_SETTLE_SECONDS)
        sender = frames.mac_bytes(suspect.mac)
        for name, wire in wires.items():
            # Everything it sends has its MAC, the token, or both.
            if count := wire.arrived(lambda f: outbound in f or f[6:12] == sender):
                found.append(f"{count} frames of {suspect.name} arrived at {name}")
        if count := own.arrived(b""):
            found.append(f"{count} frames arrived at {suspect.name}")
    finally:
        for wire in (*wires.values(), own):
            wire.close()
        for vm in (suspect, friend):
            vm.forget_neighbours()
    return found
