"""Revisions of what the agent of a host must have, by content: the same on the server and in the
agent.

Neutron's revision numbers do not serve: they rise with a port's status or name,
and no number rises when a group that rules refer to gets a member.
"""

import functools
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agent_flows.neutron import parsing
from agent_flows.neutron.rules_digest import of_lines


@dataclass(frozen=True)
class PortContent:
    """A port; every address as Neutron stores it.

    ``filtered``: its security groups apply. ``pairs``: IP and MAC address of
    its allowed address pairs.
    """

    mac: str
    admin_state_up: bool
    filtered: bool
    addresses: Iterable[str]
    pairs: Iterable[tuple[str, str]]
    groups: frozenset[str]

    @property
    def revision(self) -> int:
        groups = (f"group {group}" for group in self.groups)
        own = f"{int(self.admin_state_up)} {int(self.filtered)} {_mac(self.mac)}"
        return of_lines([own, *self.members, *groups])

    @property
    def members(self) -> frozenset[str]:
        """What the port adds to its groups, as :func:`member` has it."""
        own = (member(address, self.mac) for address in self.addresses)
        return frozenset(own).union(member(*pair) for pair in self.pairs)


def member(address: str, mac: str) -> str:
    """An address of a security group's member: a line of :func:`revision_of_members`."""
    return f"{_address(address)} {_mac(mac)}"


def revision_of_group(*, stateful: bool, rules: int) -> int:
    """A security group's; ``rules`` is their digest (:mod:`agent_flows.neutron.rules_digest`)."""
    return of_lines([f"{int(stateful)} {rules}"])


def revision_of_members(members: Iterable[str]) -> int:
    """Of all members of a security group."""
    return of_lines(members)


def revision_of_addresses(addresses: Iterable[str]) -> int:
    """An address group's."""
    return of_lines(map(_address, addresses))


def comparable(found: Mapping[str, int]) -> dict[str, int]:
    """Without ids that are not UUIDs: Neutron's tables can hold them, messages cannot."""
    return {id_: revision for id_, revision in found.items() if parsing.is_port_id(id_)}


def _mac(mac: str) -> str:
    return mac.lower().replace("-", ":")


def _address(address: str) -> str:
    """An address or network, in one form of the several that mean the same."""
    return _normal(address) if ":" in address else address.removesuffix("/32")


@functools.lru_cache(maxsize=10_000)
def _normal(address: str) -> str:
    try:
        return str(ipaddress.ip_network(address, strict=False)).removesuffix("/128")
    except ValueError:
        return address
