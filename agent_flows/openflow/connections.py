"""Ends the connections that a port leaves behind: the next port with its address, or in its
conntrack zone, would get the replies to them, even against its rules."""

import ipaddress
import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from agent_flows.openflow.ofctl import Ofctl
from agent_flows.spec import PortSpec


@dataclass(frozen=True)
class Speaker:
    """A port in a conntrack zone, and the single addresses that it sends from."""

    zone: int
    addresses: frozenset[str]


def addresses_of(port: PortSpec) -> frozenset[str]:
    """The single addresses that a port sends from; a prefix in an address pair is not one."""
    texts = [*port.fixed_ips, *(pair.ip_address for pair in port.allowed_address_pairs)]
    networks = [ipaddress.ip_network(text) for text in texts]
    return frozenset(
        str(each.network_address) for each in networks if each.prefixlen == each.max_prefixlen
    )


def abandoned(before: Iterable[Speaker], after: Iterable[Speaker]) -> dict[int, set[str]]:
    """The addresses, by zone, from which there were speakers before and are none after."""
    result: dict[int, set[str]] = {}
    for speaker in before:
        result.setdefault(speaker.zone, set()).update(speaker.addresses)
    for speaker in after:
        if speaker.zone in result:
            result[speaker.zone] -= speaker.addresses
    return result


def end(ofctl: Ofctl, zone: int, addresses: Iterable[str]) -> None:
    """End the connections from and to these addresses in a zone.

    Raises :class:`agent_flows.openflow.ofctl.SwitchError` or
    :class:`agent_flows.openflow.ofctl.Timeout`.
    """
    for address in sorted(addresses):
        family = "ipv6" if ":" in address else "nw"
        for side in ("src", "dst"):
            ofctl.flush_connections(zone, f"ct_{family}_{side}={address}")


class Connections:
    """Of the ports of a bridge whose zones another program gives. Thread-safe.

    Connections of a port that was not held here, as before a restart, are unknown.
    """

    def __init__(self, ofctl: Ofctl) -> None:
        self._ofctl = ofctl
        self._lock = threading.Lock()
        self._speakers: dict[str, Speaker] = {}

    def hold(self, speakers: Mapping[str, Speaker]) -> None:
        """Note these ports as they are now; end what they had before and have no more.

        Raises as :func:`end` does; call it again then.
        """
        with self._lock:
            before = {
                port_id: known
                for port_id in speakers
                if (known := self._speakers.get(port_id)) not in (None, speakers[port_id])
            }
            after = {**self._speakers, **speakers}
            self._end(before, after)
            self._speakers = after

    def leave(self, port_ids: Collection[str]) -> None:
        """These ports are gone. Raises as :func:`end` does; call it again then."""
        with self._lock:
            before = {each: self._speakers[each] for each in port_ids if each in self._speakers}
            after = {each: at for each, at in self._speakers.items() if each not in before}
            self._end(before, after)
            self._speakers = after

    def _end(self, before: Mapping[str, Speaker], after: Mapping[str, Speaker]) -> None:
        zones = {speaker.zone for speaker in after.values()}
        for zone, addresses in abandoned(before.values(), after.values()).items():
            if zone in zones:
                end(self._ofctl, zone, addresses)
            else:
                self._ofctl.flush_connections(zone)
