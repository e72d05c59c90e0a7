"""What a change of a port in Neutron means for our row and our provisioning block. Pure.

A port has a row while it is bound to a host whose OVS agent has our extension.
Our block keeps such a port from being ACTIVE: after every binding, and whenever
it has gone from ACTIVE to DOWN.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from neutron.plugins.ml2.common.constants import DEFAULT_DEVICE_OWNER, NO_PBLOCKS_TYPES
from neutron_lib import constants
from neutron_lib.api.definitions import allowedaddresspairs, port_security, portbindings

ENTITY = "AGENT_FLOWS"
EXTENSION = "agent_flows"

_OVS_VIFS = frozenset({portbindings.VIF_TYPE_OVS, portbindings.VIF_TYPE_VHOST_USER})
_ACTIVE: str = constants.PORT_STATUS_ACTIVE
_NEVER_BLOCKED = frozenset(NO_PBLOCKS_TYPES) - {DEFAULT_DEVICE_OWNER}


def is_gated(device_owner: str) -> bool:
    """Whether a port of this owner may get a provisioning block.

    Ports of Neutron's own services never do (``NO_PBLOCKS_TYPES``). That list
    also has ports without an owner, but those may be a VM's.
    """
    return device_owner not in _NEVER_BLOCKED


def has_extension(configurations: Mapping[str, Any] | None) -> bool:
    """Whether an OVS agent that reports these configurations has our extension."""
    return EXTENSION in ((configurations or {}).get("extensions") or ())


def is_bound(host: str | None, vif_type: str | None) -> bool:
    """Whether an OVS agent, if ``host`` has one, is to wire the port."""
    return bool(host) and vif_type in _OVS_VIFS


def is_filtered(device_owner: str, port_security: bool | None) -> bool:
    """Whether security groups apply: not to trusted ports (neutron.common.utils.is_port_trusted).

    Without the extension driver ``port_security`` there is no such row, and they apply.
    """
    trusted = device_owner.startswith(constants.DEVICE_OWNER_NETWORK_PREFIX)
    return port_security is not False and not trusted


@dataclass(frozen=True)
class Wiring:
    """The fields of a port in Neutron that its wiring depends on."""

    mac_address: str
    addresses: frozenset[str]
    pairs: frozenset[tuple[str, str]]
    security_groups: frozenset[str]
    port_security: bool
    admin_state_up: bool
    device_owner: str
    profile: str


@dataclass(frozen=True)
class PortFacts:
    """A port as a mechanism driver gets it, before a change or after."""

    host: str
    vif_type: str
    status: str
    revision: int
    wiring: Wiring

    @classmethod
    def of(cls, port: Mapping[str, Any]) -> Self:
        mac = port["mac_address"]
        pairs = port.get(allowedaddresspairs.ADDRESS_PAIRS) or ()
        return cls(
            host=port.get(portbindings.HOST_ID) or "",
            vif_type=port.get(portbindings.VIF_TYPE) or portbindings.VIF_TYPE_UNBOUND,
            status=port["status"],
            revision=port.get("revision_number") or 0,
            wiring=Wiring(
                mac_address=str(mac),
                addresses=frozenset(str(fixed["ip_address"]) for fixed in port["fixed_ips"]),
                pairs=frozenset(
                    (str(pair["ip_address"]), str(pair.get("mac_address") or mac)) for pair in pairs
                ),
                security_groups=frozenset(port.get("security_groups") or ()),
                port_security=port.get(port_security.PORTSECURITY, True),
                admin_state_up=port["admin_state_up"],
                device_owner=port["device_owner"] or "",
                profile=repr(sorted((port.get(portbindings.PROFILE) or {}).items())),
            ),
        )

    @property
    def bound(self) -> bool:
        return is_bound(self.host, self.vif_type)

    @property
    def in_transit(self) -> bool:
        """It has a host but no driver has bound it yet."""
        return bool(self.host) and self.vif_type == portbindings.VIF_TYPE_UNBOUND


@dataclass(frozen=True)
class Change:
    """What to do, in this order.

    ``drop``: delete the row. ``take``: insert a row. ``revise``: the desired
    state is newer than any report. ``fall``: the port went DOWN, so what was
    proven of it holds no longer. ``block``: add our block (True), remove it
    (False) or leave it alone (None). ``ungated``: it is removed because gating is off.
    ``rise``: the port became ACTIVE.
    """

    drop: bool = False
    take: bool = False
    revise: bool = False
    fall: bool = False
    block: bool | None = None
    ungated: bool = False
    rise: bool = False


def matters(before: PortFacts, after: PortFacts) -> bool:
    """Whether this change may matter to us: a name does not."""
    return (
        (before.status == _ACTIVE) != (after.status == _ACTIVE)
        or (before.host, before.vif_type, before.wiring)
        != (after.host, after.vif_type, after.wiring)
    )  # fmt: skip


def decide(
    before: PortFacts,
    after: PortFacts,
    row_host: str | None,
    extension: Callable[[], bool],
    gating_off: Callable[[], bool],
) -> Change:
    """What the change of a port from ``before`` to ``after`` means.

    ``row_host`` is the host in our row for it, None without a row. ``extension``
    answers whether the agent of the host has our extension, ``gating_off`` whether ports there
    get no block; both read the database.
    """
    change = _decide(before, after, row_host, extension)
    if change.block and gating_off():
        change = dataclasses.replace(change, block=False, ungated=True)
    rose = before.status != _ACTIVE and after.status == _ACTIVE
    kept = row_host is not None and not change.drop and not change.take
    return dataclasses.replace(change, rise=rose and kept)


def _decide(
    before: PortFacts, after: PortFacts, row_host: str | None, extension: Callable[[], bool]
) -> Change:
    if after.in_transit and row_host == after.host:
        return Change(revise=True, fall=True)
    release = Change() if row_host is None else Change(drop=True, block=False)
    if not after.bound:
        return release
    again = _fell(before, after) or before.host != after.host or not before.bound
    if again and not extension():
        return release
    if row_host == after.host:
        return _kept(before, after, again)
    if not again:
        return Change()
    gated = is_gated(after.wiring.device_owner)
    return Change(drop=row_host is not None, take=True, block=True if gated else None)


def _kept(before: PortFacts, after: PortFacts, again: bool) -> Change:
    """A port that had a row and keeps it; ``again``: it was bound again or went DOWN."""
    was, gated = (is_gated(each.wiring.device_owner) for each in (before, after))
    block = None
    if gated and after.status != _ACTIVE and (again or not was):
        block = True
    elif was and not gated:
        block = False
    rebound = not before.bound or before.host != after.host
    return Change(revise=rebound or before.wiring != after.wiring, fall=again, block=block)


def _fell(before: PortFacts, after: PortFacts) -> bool:
    return before.status == _ACTIVE and after.status != _ACTIVE


def desired_revision(before: PortFacts) -> int:
    """The lowest revision number that no agent saw before this change.

    Every change that matters raises Neutron's number at the latest when the
    transaction commits, so the port will have this one or a higher.
    """
    return before.revision + 1
