"""A port as the agent passes it to its extensions: what its wiring depends on. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from neutron_lib import constants

_FACTS = (
    "mac_address",
    "fixed_ips",
    "allowed_address_pairs",
    "security_groups",
    "port_security_enabled",
    "device_owner",
    "network_id",
    "network_type",
    "physical_network",
    "segmentation_id",
)


@dataclass(frozen=True)
class PluggedPort:
    """A port and its interface; two are equal if the port needs the same wiring."""

    port_id: str
    interface: str
    ofport: int
    admin_state_up: bool
    groups: tuple[str, ...]
    facts: tuple[str, ...]

    @classmethod
    def of(cls, details: Mapping[str, Any]) -> Self:
        """From the details of ``handle_port`` (ovs_neutron_agent.py)."""
        vif = details["vif_port"]
        return cls(
            port_id=str(details["port_id"]),
            interface=str(vif.port_name),
            ofport=int(vif.ofport),
            admin_state_up=bool(details.get("admin_state_up", True)),
            groups=tuple(sorted(map(str, details.get("security_groups") or ()))),
            facts=(*(_text(details.get(name)) for name in _FACTS), str(vif.vif_mac)),
        )


def is_active(details: Mapping[str, Any]) -> bool:
    """Whether the port was ACTIVE in the server when the agent read these details."""
    return bool(details.get("status") == constants.PORT_STATUS_ACTIVE)


def _text(value: object) -> str:
    """Equal for equal values, in any order."""
    if isinstance(value, Mapping):
        return repr(sorted((str(name), _text(content)) for name, content in value.items()))
    if isinstance(value, list | tuple | set | frozenset):
        return repr(sorted(map(_text, value)))
    return str(value)
