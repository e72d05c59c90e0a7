"""What the groups allow, in a few lines without OpenFlow.

Only what the update tests ask: unicast between ports with port security, by
protocol, port, address and membership.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from agent_flows.spec import DesiredState, Direction, SecurityGroupRule

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Probe:
    """A kind of packet: ``ports`` are the ids of its source and target, ``ips`` their addresses."""

    number: int
    ports: tuple[str, str]
    ips: tuple[str, str]
    protocol: int
    destination_port: int
    established: bool


class Verdict(NamedTuple):
    """Each end decides for itself."""

    may_leave: bool
    may_enter: bool


def verdict(desired: DesiredState, probe: Probe) -> Verdict:
    source, target = probe.ports
    return Verdict(
        _allowed(desired, source, Direction.EGRESS, probe, probe.ips[1]),
        _allowed(desired, target, Direction.INGRESS, probe, probe.ips[0]),
    )


def must_pass(verdicts: Iterable[Verdict]) -> bool:
    """Allowed at both ends whichever of these moments counts."""
    return all(each.may_leave and each.may_enter for each in verdicts)


def must_not_pass(verdicts: Iterable[Verdict]) -> bool:
    """Forbidden at one end whichever of these moments counts.

    A packet is looked at once at each end, and an update may come between the
    two: one end before it and the other after it is no leak.
    """
    seen = list(verdicts)
    return not any(each.may_leave for each in seen) or not any(each.may_enter for each in seen)


def _allowed(
    desired: DesiredState, port: str, direction: Direction, probe: Probe, peer: str
) -> bool:
    return any(
        _matches(desired, rule, direction, probe, peer)
        for group in desired.ports[port].security_groups
        for rule in desired.security_groups[group].rules
    )


def _matches(
    desired: DesiredState, rule: SecurityGroupRule, direction: Direction, probe: Probe, peer: str
) -> bool:
    address = ipaddress.ip_address(peer)
    if rule.direction is not direction or rule.ethertype.version != address.version:
        return False
    if rule.protocol not in (None, probe.protocol):
        return False
    low, high = rule.port_range_min, rule.port_range_max
    if low is not None and high is not None and not low <= probe.destination_port <= high:
        return False
    return any(address in network for network in _peers(desired, rule, address.version))


def _peers(desired: DesiredState, rule: SecurityGroupRule, version: int) -> list[Network]:
    if rule.remote_ip_prefix is not None:
        return [rule.remote_ip_prefix]
    if rule.remote_group_id is not None:
        members = desired.security_groups[rule.remote_group_id].members
        found = [member.address for member in members]
    elif rule.remote_address_group_id is not None:
        found = list(desired.address_groups[rule.remote_address_group_id].addresses)
    else:
        return [ipaddress.ip_network("0.0.0.0/0" if version == 4 else "::/0")]
    return [network for network in found if network.version == version]
