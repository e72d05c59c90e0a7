"""What a PUT may say: Neutron's names and meanings, typed and validated.

A PUT is the whole desired state of one object; what it leaves out has its
default.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import pydantic
from pydantic.dataclasses import dataclass

from agent_flows.spec import AddressPair, NetworkSpec, NetworkType, SecurityGroupRule
from agent_flows.validation import (
    HOST_PATTERN,
    PRINTABLE,
    STRICT,
    Address,
    Bool,
    FieldError,
    Hostname,
    Invalid,
    Mac,
    PhysicalNetwork,
    PlainText,
    Uuid,
    parse,
)
from agent_flows.validation import Network as Prefix

T = TypeVar("T")
_NO_MAC = "00:00:00:00:00:00"


Binding = Annotated[
    Hostname | None,
    pydantic.BeforeValidator(lambda value: None if value == "" else value),
    pydantic.WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": HOST_PATTERN},
                {"type": "string", "maxLength": 0},
                {"type": "null"},
            ]
        }
    ),
]


def _given_mac(value: str) -> str:
    # neutron_lib/constants.py, INVALID_MAC_ADDRESSES.
    if value == _NO_MAC:
        raise ValueError("must not be the MAC address of zeros")
    return value


GivenMac = Annotated[Mac, pydantic.AfterValidator(_given_mac)]


def _mappable(value: object) -> object:
    if isinstance(value, str) and (value != value.strip() or ":" in value or "," in value):
        raise ValueError(
            "must be a name that bridge_mappings can hold: without : and , and without spaces "
            "around it"
        )
    return value


def _unique(field: str, items: Sequence[Hashable], what: str) -> None:
    seen = set()
    for place, item in enumerate(items):
        if item in seen:
            raise FieldError(f"{field}.{place}", str(item), f"the same {what} twice")
        seen.add(item)


@dataclass(frozen=True, config=STRICT)
class Network(NetworkSpec):
    """The network that ports are on."""

    network_type: Annotated[
        NetworkType,
        # What else there is belongs to Neutron: _no_tunnel.
        pydantic.WithJsonSchema({"type": "string", "enum": ["local", "flat", "vlan"]}),
    ]
    name: PlainText = ""
    physical_network: Annotated[
        Annotated[PhysicalNetwork, PRINTABLE] | None, pydantic.BeforeValidator(_mappable)
    ] = None

    @property
    def segment(self) -> str | None:
        """The piece of the physical network it occupies; a flat network takes the untagged one."""
        if self.physical_network is None:
            return None
        return f"{self.network_type}:{self.physical_network}:{self.segmentation_id or ''}"

    @pydantic.field_validator("network_type")
    @classmethod
    def _no_tunnel(cls, value: NetworkType) -> NetworkType:
        # Tunnels are known from Neutron's ports; an agent of ours has none.
        if value.is_tunnel:
            raise ValueError("must be local, flat or vlan")
        return value


@dataclass(frozen=True, config=STRICT)
class AddressGroup:
    id: Uuid
    name: PlainText = ""
    addresses: tuple[Prefix, ...] = ()

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "AddressGroup":
        _unique("addresses", self.addresses, "address")
        return self


@dataclass(frozen=True, config=STRICT)
class SecurityGroup:
    id: Uuid
    name: PlainText = ""
    stateful: Bool = True
    security_group_rules: tuple[SecurityGroupRule, ...] = ()

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "SecurityGroup":
        _unique("security_group_rules", self.security_group_rules, "rule")
        return self


@dataclass(frozen=True, config=STRICT)
class FixedIp:
    ip_address: Address


@dataclass(frozen=True, config=STRICT)
class Port:
    id: Uuid
    network_id: Uuid
    mac_address: GivenMac
    name: PlainText = ""
    fixed_ips: tuple[FixedIp, ...] = ()
    allowed_address_pairs: tuple[AddressPair, ...] = ()
    security_groups: tuple[Uuid, ...] = ()
    port_security_enabled: Bool = True
    admin_state_up: Bool = True
    device_owner: PlainText = ""
    host: Annotated[Binding, pydantic.Field(alias="binding:host_id")] = None

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "Port":
        _unique("fixed_ips", self.fixed_ips, "address")
        for place, pair in enumerate(self.allowed_address_pairs):
            if pair.mac_address == _NO_MAC:
                field = f"allowed_address_pairs.{place}.mac_address"
                raise FieldError(field, _NO_MAC, "must not be the MAC address of zeros")
        _unique("allowed_address_pairs", self.allowed_address_pairs, "address pair")
        _unique("security_groups", self.security_groups, "security group")
        return self


READ_ONLY: Mapping[type, frozenset[str]] = {
    Port: frozenset(
        {
            "status",
            "sync_state",
            "sync_revision",
            "sync_since",
            "sync_reason",
            "reason",
            "revision_number",
            "updated_at",
        }
    ),
    SecurityGroup: frozenset({"revision_number", "sync"}),
    Network: frozenset({"sync"}),
}


def read(kind: type[T], resource_id: str, raw: object) -> T:
    """The body of ``PUT .../resource_id`` as a ``kind``; raises :class:`Invalid`."""
    if not isinstance(raw, Mapping):
        raise Invalid("", raw, "must be an object")
    if raw.get("id", resource_id) != resource_id:
        raise Invalid("id", raw["id"], f"must be the one in the URL, {resource_id}")
    return _read(kind, {**raw, "id": resource_id}, ())


def read_one_of_many(kind: type[T], path: str, raw: object) -> T:
    """The object at ``path`` of a body as a ``kind``; raises :class:`Invalid` with that path."""
    if not isinstance(raw, Mapping):
        raise Invalid(path, raw, "must be an object")
    if "id" not in raw:
        raise Invalid(f"{path}.id", None, "is missing")
    return _read(kind, raw, (path,))


def _read(kind: type[T], raw: Mapping[str, object], path: Sequence[str]) -> T:
    for field in sorted(READ_ONLY.get(kind, frozenset()) & raw.keys()):
        raise Invalid(".".join([*path, field]), raw[field], "is read-only")
    body: T = parse(_ADAPTERS[kind], raw, path)
    return body


_ADAPTERS: Mapping[type, pydantic.TypeAdapter[Any]] = {
    kind: pydantic.TypeAdapter(kind) for kind in (Network, AddressGroup, SecurityGroup, Port)
}
