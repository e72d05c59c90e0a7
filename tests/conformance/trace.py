"""Asks ovs-vswitchd what it would do with a packet (ofproto/trace), thousands of times a minute.

The daemon is asked over its control socket directly (ovs-appctl(8): JSON-RPC):
a process for each question would cost ten times as much.
"""

import json
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.conformance.world import (
    ARP,
    ICMP,
    ICMPV6,
    IPV4,
    IPV6,
    RARP,
    SCTP,
    TCP,
    UDP,
    Change,
    Packet,
    State,
    Verdict,
)

_TIMEOUT = 60  # seconds; a busy machine answers late, not never
_MOST_RECIRCULATIONS = 8
"""A packet for several receivers is asked about once for each."""

_CT_STATES = {
    State.NEW: "trk,new",
    State.ESTABLISHED: "trk,est",
    State.REPLY: "trk,est,rpl",
    State.RELATED: "trk,rel",
    State.RELATED_REPLY: "trk,rel,rpl",
    State.INVALID: "trk,inv",
}
_WORDS = {
    (IPV4, ICMP): "icmp",
    (IPV4, TCP): "tcp",
    (IPV4, UDP): "udp",
    (IPV4, SCTP): "sctp",
    (IPV6, ICMPV6): "icmp6",
    (IPV6, TCP): "tcp6",
    (IPV6, UDP): "udp6",
    (IPV6, SCTP): "sctp6",
}
_PORTS_OF = {TCP: "tcp", UDP: "udp", SCTP: "sctp"}
"""Matches on ports need the protocol by name (ovs-fields(7), "Prerequisites")."""
_COMMIT = re.compile(r"ct\(commit,zone=(?P<zone>\d+)(?:,mark=(?P<mark>0x[0-9a-f]+|0)/[^,)]+)?")
_OUTPUT = re.compile(r"^ +output:(?P<port>\d+)\n(?! +>>)", re.MULTILINE)
_NORMAL = re.compile(r"^ +NORMAL\n(?! +>>)", re.MULTILINE)


class TraceFailed(Exception):
    """The daemon did not take the question."""


class Tracer:
    """A connection to one daemon's control socket."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_TIMEOUT)
        self._socket.connect(str(self._path))
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def call(self, method: str, *params: str) -> str:
        """What ``ovs-appctl method params...`` prints. Raises :class:`TraceFailed`."""
        request = {"id": 0, "method": method, "params": list(params)}
        self._socket.sendall(json.dumps(request).encode())
        received = b""
        while True:
            block = self._socket.recv(1 << 16)
            if not block:
                raise TraceFailed(f"ovs-vswitchd closed the connection at {method}")
            received += block
            try:
                answer = json.loads(received)
            except ValueError:
                continue  # not all of it yet
            if answer["error"] is not None:
                raise TraceFailed(answer["error"])
            return str(answer["result"])

    def trace(self, bridge: str, flow: str, state: State) -> str:
        asked = ["--ct-next", _CT_STATES[state]] * _MOST_RECIRCULATIONS
        return self.call("ofproto/trace", bridge, flow, *asked)


def flow_of(packet: Packet, in_port: int, tag: int | None) -> str:
    """``packet`` in the notation of ofproto/trace, arriving at ``in_port`` with ``tag``."""
    fields: list[str] = [f"in_port={in_port}"]
    if tag is not None:
        fields.append(f"dl_vlan={tag}")
    fields += [f"dl_src={packet.eth_src}", f"dl_dst={packet.eth_dst}"]
    words = _WORDS.get((packet.ethertype, packet.protocol), f"dl_type={packet.ethertype:#06x}")
    fields.append(words)
    if packet.ethertype in (ARP, RARP):
        fields += [f"arp_op={1 if packet.ethertype == ARP else 3}"]
        fields += [f"arp_sha={packet.arp_mac}", f"arp_spa={packet.src}", f"arp_tpa={packet.dst}"]
    if packet.version is not None:
        six = packet.ethertype == IPV6
        source, destination = ("ipv6_src", "ipv6_dst") if six else ("nw_src", "nw_dst")
        fields += [f"{source}={packet.src}", f"{destination}={packet.dst}"]
        if words.startswith("dl_type"):
            fields.append(f"nw_proto={packet.protocol}")
        fields.append("nw_ttl=64")
        if packet.ports is not None:
            name = _PORTS_OF[packet.protocol or 0]
            fields += [f"{name}_src={packet.ports[0]}", f"{name}_dst={packet.ports[1]}"]
        if packet.icmp is not None and packet.protocol in (ICMP, ICMPV6):
            name = "icmpv6" if six else "icmp"
            fields += [f"{name}_type={packet.icmp[0]}", f"{name}_code={packet.icmp[1]}"]
        if packet.nd_target is not None:
            fields.append(f"nd_target={packet.nd_target}")
    if packet.cut:
        fields.append("ct_mark=1")
    return ",".join(fields)


def read(text: str, uplinks: tuple[int, ...]) -> Verdict:
    """The verdict in a trace; ``uplinks`` are the ports that lead to the network.

    ``network`` includes NORMAL; what NORMAL then does with the packet
    depends on the MACs the bridge has learned, which is not the firewall's doing.
    """
    outputs = {int(each["port"]) for each in _OUTPUT.finditer(text)}
    changes = {
        _CHANGES[None if commit["mark"] is None else int(commit["mark"], 16)]
        for line in text.splitlines()
        if line.startswith("Datapath actions: ")
        for commit in _COMMIT.finditer(line)
    }
    return Verdict(
        ports=frozenset(outputs.difference(uplinks)),
        network=_NORMAL.search(text) is not None or not outputs.isdisjoint(uplinks),
        changes=frozenset(changes),
    )


def outputs(text: str) -> set[tuple[int, int | None]]:
    """What goes out in the end: the datapath's port numbers, and the VLAN tag on the frame."""
    found: set[tuple[int, int | None]] = set()
    tag: int | None = None
    for line in text.splitlines():
        if line.startswith("Flow: "):
            given = _TAG.search(line)
            tag = int(given[1]) if given else None
        elif line.startswith("Datapath actions: "):
            for action in _ACTION.findall(line.partition(": ")[2]):
                if action.isdigit():
                    found.add((int(action), tag))
                elif action == "pop_vlan":
                    tag = None
                elif "vid=" in action:
                    tag = int(action.partition("vid=")[2].partition(",")[0])
    return found


_TAG = re.compile(r"\bdl_vlan=(\d+)")
_ACTION = re.compile(r"(?:[^,()]|\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\))+")
"""Up to a comma that is in no parentheses."""

_CHANGES: Mapping[int | None, Change] = {None: Change.COMMIT, 0: Change.MEND, 1: Change.CUT}
