"""Desired state of ports, as the server sends it.

A port's spec contains everything its wiring depends on except the content of
its security groups: each group is a spec of its own, once for all its ports.
Names and meanings are those of Neutron's API.
"""

import dataclasses
import enum
from collections.abc import Iterable, Mapping
from typing import Annotated, TypeVar

import pydantic
from pydantic.dataclasses import dataclass

from agent_flows.validation import (
    STRICT,
    Address,
    Bool,
    FieldError,
    Hostname,
    Invalid,
    Mac,
    Network,
    PhysicalNetwork,
    Revision,
    Text,
    Uuid,
)


class NetworkType(enum.StrEnum):
    LOCAL = "local"
    FLAT = "flat"
    VLAN = "vlan"
    VXLAN = "vxlan"
    GRE = "gre"
    GENEVE = "geneve"

    @property
    def is_tunnel(self) -> bool:
        return self in (NetworkType.VXLAN, NetworkType.GRE, NetworkType.GENEVE)


class Direction(enum.StrEnum):
    """From the VM's point of view: ingress is traffic to it."""

    INGRESS = "ingress"
    EGRESS = "egress"


class Ethertype(enum.StrEnum):
    IPV4 = "IPv4"
    IPV6 = "IPv6"

    @property
    def version(self) -> int:
        return 4 if self is Ethertype.IPV4 else 6


# Neutron's IP_PROTOCOL_MAP (neutron_lib/constants.py), IANA protocol numbers.
PROTOCOLS: Mapping[str, int] = {
    "ah": 51,
    "dccp": 33,
    "egp": 8,
    "esp": 50,
    "gre": 47,
    "hopopt": 0,
    "icmp": 1,
    "icmpv6": 58,
    "igmp": 2,
    "ip": 0,
    "ipip": 4,
    "ipv6-encap": 41,
    "ipv6-frag": 44,
    "ipv6-icmp": 58,
    "ipv6-nonxt": 59,
    "ipv6-opts": 60,
    "ipv6-route": 43,
    "ospf": 89,
    "pgm": 113,
    "rsvp": 46,
    "sctp": 132,
    "tcp": 6,
    "udp": 17,
    "udplite": 136,
    "vrrp": 112,
}
_MOST_DIGITS = 5  # of 65535
TCP, UDP, SCTP, ICMP, ICMPV6 = 6, 17, 132, 1, 58
PROTOCOLS_WITH_PORTS = frozenset({6, 17, 33, 132, 136})


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS


def _protocol(value: object) -> object:
    if isinstance(value, str):
        name = value.lower()
        if name == "any":
            return None
        if _is_number(name):
            return int(name)
        if name not in PROTOCOLS:
            raise ValueError(
                f"unknown protocol; a number from 0 to 255, any, or one of {', '.join(PROTOCOLS)}"
            )
        return PROTOCOLS[name]
    return value


def _ethertype(value: object) -> object:
    names = {member.value.lower(): member for member in Ethertype}
    return names.get(value.lower(), value) if isinstance(value, str) else value


def _port_number(value: object) -> object:
    return int(value) if isinstance(value, str) and _is_number(value) else value


Protocol = Annotated[
    Annotated[int, pydantic.Strict(), pydantic.Field(ge=0, le=255)] | None,
    pydantic.BeforeValidator(_protocol),
    pydantic.WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": 255},
                {"type": "string", "format": "protocol"},
                {"type": "null"},
            ],
            "description": "A number, also as text, a name, or any.",
        }
    ),
]
# Numbers as text and names in any case, as Neutron accepts them
# (neutron/extensions/securitygroup.py, the convert_ functions).
PortNumber = Annotated[
    int,
    pydantic.Strict(),
    pydantic.Field(ge=0, le=65535),
    pydantic.BeforeValidator(_port_number),
    pydantic.WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": 65535},
                {"type": "string", "pattern": "^[0-9]{1,5}$"},
            ]
        }
    ),
]
AnyCaseEthertype = Annotated[
    Ethertype,
    pydantic.BeforeValidator(_ethertype),
    pydantic.WithJsonSchema({"type": "string", "pattern": "^[Ii][Pp][Vv][46]$"}),
]


# neutron_lib/constants.py, MAX_VXLAN_VNI and MAX_GRE_ID.
_TOP_TUNNEL_KEY = 2**24 - 1
_TOP_GRE_KEY = 2**32 - 1
_TOP_SEGMENTS = {NetworkType.VLAN: 4094, NetworkType.GRE: _TOP_GRE_KEY}


@dataclass(frozen=True, config=STRICT)
class NetworkSpec:
    """The network a port is on; ``mtu`` in bytes.

    ``segmentation_id`` is the tag of a VLAN (1 to 4094) or the key of a tunnel
    (1 to 2**24 - 1, for GRE to 2**32 - 1); a local or flat network has none.
    Only a flat or VLAN network has a ``physical_network``: any text of 1 to 64
    characters, as in Neutron.
    """

    id: Uuid
    network_type: NetworkType
    segmentation_id: (
        Annotated[int, pydantic.Strict(), pydantic.Field(ge=1, le=_TOP_GRE_KEY)] | None
    ) = None
    physical_network: PhysicalNetwork | None = None
    mtu: Annotated[int, pydantic.Strict(), pydantic.Field(ge=68, le=65535)] = 1500

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "NetworkSpec":
        type_ = self.network_type
        self._check_given("physical_network", type_ in (NetworkType.FLAT, NetworkType.VLAN))
        self._check_given("segmentation_id", type_ is NetworkType.VLAN or type_.is_tunnel)
        top = _TOP_SEGMENTS.get(type_, _TOP_TUNNEL_KEY)
        if (self.segmentation_id or 0) > top:
            raise FieldError(
                "segmentation_id", self.segmentation_id, f"{type_} allows at most {top}"
            )
        return self

    def _check_given(self, field: str, needed: bool) -> None:
        value = getattr(self, field)
        if needed != (value is not None):
            verb = "must be" if needed else "must not be"
            raise FieldError(field, value, f"{verb} set for a {self.network_type} network")


@dataclass(frozen=True, config=STRICT)
class AddressPair:
    """A further address that the port may use; without a MAC, with the port's own."""

    ip_address: Network
    mac_address: Mac | None = None


@dataclass(frozen=True, config=STRICT)
class SecurityGroupRule:
    """One allow rule.

    In both directions ``port_range_*`` are destination ports and
    ``source_port_range_*`` source ports; for ICMP ``port_range_*`` are type and
    code (0 is a type).
    """

    direction: Direction
    ethertype: AnyCaseEthertype = Ethertype.IPV4
    protocol: Protocol = None
    port_range_min: PortNumber | None = None
    port_range_max: PortNumber | None = None
    source_port_range_min: PortNumber | None = None
    source_port_range_max: PortNumber | None = None
    remote_ip_prefix: Network | None = None
    remote_group_id: Uuid | None = None
    remote_address_group_id: Uuid | None = None

    @property
    def protocol_number(self) -> int | None:
        """The IP protocol to match; ``icmp`` in an IPv6 rule is ICMPv6 (58), as in Neutron."""
        if self.protocol == ICMP and self.ethertype is Ethertype.IPV6:
            return ICMPV6
        return self.protocol

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "SecurityGroupRule":
        remotes = {
            name: getattr(self, name)
            for name in ("remote_ip_prefix", "remote_group_id", "remote_address_group_id")
            if getattr(self, name) is not None
        }
        if len(remotes) > 1:
            name = list(remotes)[-1]
            raise FieldError(
                name, str(remotes[name]), f"only one of {', '.join(remotes)} may be set"
            )
        prefix = self.remote_ip_prefix
        if prefix is not None and prefix.version != self.ethertype.version:
            raise FieldError("remote_ip_prefix", str(prefix), f"must be an {self.ethertype} prefix")
        if self.protocol == ICMPV6 and self.ethertype is Ethertype.IPV4:
            raise FieldError("protocol", self.protocol, "ICMPv6 needs ethertype IPv6")
        self._check_ports()
        return self

    def _check_ports(self) -> None:
        if self.protocol_number in (ICMP, ICMPV6):
            self._check_icmp()
        else:
            self._check_range("port_range_min", "port_range_max")
        self._check_range("source_port_range_min", "source_port_range_max")

    def _check_icmp(self) -> None:
        type_, code = self.port_range_min, self.port_range_max
        if type_ is None and code is not None:
            raise FieldError("port_range_min", type_, "an ICMP code needs a type")
        for name, value in (("port_range_min", type_), ("port_range_max", code)):
            if value is not None and value > 255:
                raise FieldError(name, value, "an ICMP type or code is at most 255")

    def _check_range(self, lowest: str, highest: str) -> None:
        low, high = getattr(self, lowest), getattr(self, highest)
        if low is None and high is None:
            return
        if self.protocol not in PROTOCOLS_WITH_PORTS:
            name, value = (lowest, low) if low is not None else (highest, high)
            raise FieldError(
                name, value, "needs a protocol with ports: tcp, udp, sctp, dccp or udplite"
            )
        if low is None or high is None:
            name = lowest if low is None else highest
            raise FieldError(name, None, f"{lowest} and {highest} must be set together")
        if low == 0:
            raise FieldError(lowest, low, "must be from 1 to 65535")
        if low > high:
            raise FieldError(highest, high, f"must not be below {lowest} {low}")


@dataclass(frozen=True, config=STRICT)
class Member:
    """An address of a member of a security group.

    ``mac_address`` is also matched for an address pair that covers every address
    (a prefix of length 0), as in Neutron's OVS firewall; otherwise only the
    address is matched, so that routed members match too.
    """

    address: Network
    mac_address: Mac | None = None


@dataclass(frozen=True, config=STRICT)
class SecurityGroupSpec:
    """A group's rules and the addresses of its members on every host.

    ``revision`` rises when something that the ports of this group depend on
    changes: its rules, or the members or addresses of a group they refer to.
    """

    id: Uuid
    revision: Revision
    stateful: Bool = True
    rules: tuple[SecurityGroupRule, ...] = ()
    members: tuple[Member, ...] = ()


@dataclass(frozen=True, config=STRICT)
class AddressGroupSpec:
    id: Uuid
    addresses: tuple[Network, ...] = ()


@dataclass(frozen=True, config=STRICT)
class PortSpec:
    """A port on the host it is bound to.

    ``revision`` is the revision_number at which something that the wiring
    depends on last changed; a change of status alone does not count.
    """

    id: Uuid
    revision: Revision
    host: Hostname
    network: NetworkSpec
    mac_address: Mac
    fixed_ips: tuple[Address, ...] = ()
    allowed_address_pairs: tuple[AddressPair, ...] = ()
    security_groups: tuple[Uuid, ...] = ()
    port_security_enabled: Bool = True
    admin_state_up: Bool = True
    device_owner: Text = ""

    @property
    def trusted(self) -> bool:
        """A port of the network itself (DHCP, router), which Neutron does not filter
        (neutron_lib.constants.DEVICE_OWNER_NETWORK_PREFIX)."""
        return self.device_owner.startswith("network:")

    @property
    def security_groups_in_force(self) -> tuple[str, ...]:
        """Those that its flows and its reports depend on: none without port security."""
        return self.security_groups if self.port_security_enabled else ()


Spec = PortSpec | SecurityGroupSpec | AddressGroupSpec
S = TypeVar("S", PortSpec, SecurityGroupSpec, AddressGroupSpec)


@dataclasses.dataclass(frozen=True)
class Refused:
    """An invalid spec: the reason, its revision, and the part at fault as received."""

    reason: str
    revision: int
    detail: str


@dataclasses.dataclass(frozen=True)
class DesiredState:
    """The desired state of a host: ports, and the groups they refer to, by id.

    ``refused`` are the invalid specs of any kind.
    """

    ports: Mapping[str, PortSpec] = dataclasses.field(default_factory=dict)
    security_groups: Mapping[str, SecurityGroupSpec] = dataclasses.field(default_factory=dict)
    address_groups: Mapping[str, AddressGroupSpec] = dataclasses.field(default_factory=dict)
    refused: Mapping[str, Refused] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, specs: Iterable[Spec]) -> "DesiredState":
        """Index ``specs``; raises :class:`Invalid` if one id comes twice."""
        ports: dict[str, PortSpec] = {}
        security_groups: dict[str, SecurityGroupSpec] = {}
        address_groups: dict[str, AddressGroupSpec] = {}
        for spec in specs:
            match spec:
                case PortSpec():
                    _add(ports, spec)
                case SecurityGroupSpec():
                    _add(security_groups, spec)
                case AddressGroupSpec():
                    _add(address_groups, spec)
        return cls(ports, security_groups, address_groups)


def _add(index: dict[str, S], spec: S) -> None:
    if spec.id in index:
        raise Invalid("id", spec.id, "the same spec twice")
    index[spec.id] = spec
