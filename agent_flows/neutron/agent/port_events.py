"""What is heard of ports and groups, and what of a port is to be closed at once. Pure."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pydantic

from agent_flows.neutron.agent.quarantine import Closed
from agent_flows.validation import Invalid, Mac, parse

_MAC: pydantic.TypeAdapter[str] = pydantic.TypeAdapter(Mac)


@dataclass(frozen=True)
class Here:
    """The details of a port that was bound, or changed (ovs_neutron_agent.py, handle_port)."""

    details: Mapping[str, Any]

    @property
    def port_id(self) -> str:
        return str(self.details.get("port_id"))


@dataclass(frozen=True)
class Gone:
    port_id: str


@dataclass(frozen=True)
class Resync:
    """None: of every port."""

    port_ids: Collection[str] | None


@dataclass(frozen=True)
class Rules:
    """A rule of this security group came or went."""

    group_id: str


Event = Here | Gone | Resync | Rules


def arrived(events: Iterable[Event]) -> list[Here]:
    """What was last heard of every port that is here and was not said to go after that."""
    here: dict[str, Here] = {}
    for each in events:
        match each:
            case Here():
                here[each.port_id] = each
            case Gone(port_id):
                here.pop(port_id, None)
    return list(here.values())


def to_close(here: Here) -> Closed:
    """Without a local VLAN by ofport alone; a MAC that no flow can carry, or that is not one
    station's, is left out. Raises whatever details that are none make it raise."""
    port_id, details = here.port_id, here.details
    ofport, vlan = int(details["vif_port"].ofport), details.get("local_vlan")
    if vlan is None:
        return Closed(port_id, ofport)
    pairs = details.get("allowed_address_pairs") or ()
    own = details.get("mac_address")
    macs = frozenset(_macs([own, *(each.get("mac_address") or own for each in pairs)]))
    segment = None
    if details.get("physical_network"):
        segment = details.get("segmentation_id") or 0
    return Closed(port_id, ofport, vlan, macs, segment)


def _macs(values: Iterable[object]) -> Iterator[str]:
    for each in values:
        try:
            yield parse(_MAC, str(each))
        except Invalid:
            continue
