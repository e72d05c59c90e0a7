"""How rows are shown: Neutron's names, times in ISO 8601, UTC."""

from collections.abc import Mapping

from agent_flows.report import PortStatus, SyncState
from agent_flows.server.core import clock
from agent_flows.server.core.listing import View
from agent_flows.server.core.shape import (
    BOOLEAN,
    INTEGER,
    MOMENT,
    TEXT,
    UUID,
    Shape,
    about,
    many,
    nullable,
    one_of,
    record,
)
from agent_flows.server.standalone import models
from agent_flows.server.standalone.desired import RULE_FIELDS
from agent_flows.spec import PROTOCOLS, Direction, Ethertype, NetworkType

# Of several names of a protocol the one Neutron's documentation uses, which is
# the last in that table's order.
_PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}

NETWORK: Mapping[str, Shape] = {
    "id": UUID,
    "name": TEXT,
    "network_type": one_of(kind for kind in NetworkType if not kind.is_tunnel),
    "segmentation_id": about(nullable(INTEGER), "the VLAN; of vlan networks"),
    "physical_network": about(nullable(TEXT), "of flat and vlan networks"),
    "mtu": about(INTEGER, "in bytes"),
}
ADDRESS_GROUP: Mapping[str, Shape] = {
    "id": UUID,
    "name": TEXT,
    "addresses": about(many(TEXT), "CIDRs"),
}
_RULE: Mapping[str, Shape] = {
    "direction": one_of(Direction),
    "ethertype": one_of(Ethertype),
    "protocol": about(
        {"type": ["string", "integer", "null"]}, "Neutron's name, else the number; null for any"
    ),
    "port_range_min": about(nullable(INTEGER), "of ICMP the type"),
    "port_range_max": about(nullable(INTEGER), "of ICMP the code"),
    "source_port_range_min": nullable(INTEGER),
    "source_port_range_max": nullable(INTEGER),
    "remote_ip_prefix": about(nullable(TEXT), "a CIDR"),
    "remote_group_id": nullable(UUID),
    "remote_address_group_id": nullable(UUID),
}
SECURITY_GROUP: Mapping[str, Shape] = {
    "id": UUID,
    "name": TEXT,
    "stateful": BOOLEAN,
    "security_group_rules": about(many(record(_RULE)), "what is allowed; nothing else is"),
    "revision_number": INTEGER,
}
PORT: Mapping[str, Shape] = {
    "id": UUID,
    "name": TEXT,
    "network_id": UUID,
    "mac_address": TEXT,
    "fixed_ips": many(record({"ip_address": TEXT})),
    "allowed_address_pairs": about(
        many(record({"ip_address": TEXT, "mac_address": TEXT})),
        "further addresses that it may use; without a MAC address, with the port's own",
    ),
    "security_groups": about(many(UUID), "ids; all stateful or all stateless"),
    "port_security_enabled": about(BOOLEAN, "false: nothing is filtered"),
    "admin_state_up": BOOLEAN,
    "device_owner": TEXT,
    "binding:host_id": about(nullable(TEXT), "the host whose agent wires it"),
    "status": one_of(PortStatus),
    "sync_state": about(one_of(SyncState), "whether the switch holds the desired state"),
    "sync_revision": about(nullable(INTEGER), "the revision_number that was proven last"),
    "sync_since": about(nullable(MOMENT), "since when it is in that state"),
    "sync_reason": about(
        nullable(record({"type": TEXT, "message": TEXT})), "the error that keeps it out of sync"
    ),
    "reason": about(nullable(TEXT), "for people: what keeps it from working, and what to do"),
    "revision_number": INTEGER,
    "updated_at": nullable(MOMENT),
}


def network(row: models.Network) -> View:
    return {
        "id": row.id,
        "name": row.name,
        "network_type": row.network_type,
        "segmentation_id": row.segmentation_id,
        "physical_network": row.physical_network,
        "mtu": row.mtu,
    }


def address_group(row: models.AddressGroup) -> View:
    return {"id": row.id, "name": row.name, "addresses": row.addresses}


def security_group(row: models.SecurityGroup) -> View:
    return {
        "id": row.id,
        "name": row.name,
        "stateful": row.stateful,
        "security_group_rules": [
            {
                **{name: getattr(rule, name) for name in RULE_FIELDS},
                "protocol": _protocol(rule.protocol),
            }
            for rule in row.rules
        ],
        "revision_number": row.revision,
    }


def _protocol(number: int | None) -> str | int | None:
    return None if number is None else _PROTOCOL_NAMES.get(number, number)


def port(row: models.Port) -> View:
    """A port as its own row has it."""
    return {
        "id": row.id,
        "name": row.name,
        "network_id": row.network_id,
        "mac_address": row.mac_address,
        "fixed_ips": [{"ip_address": address} for address in row.addresses],
        "allowed_address_pairs": [
            {
                "ip_address": pair["ip_address"],
                "mac_address": pair["mac_address"] or row.mac_address,
            }
            for pair in row.allowed_address_pairs
        ],
        "security_groups": row.security_groups,
        "port_security_enabled": row.port_security_enabled,
        "admin_state_up": row.admin_state_up,
        "device_owner": row.device_owner,
        "binding:host_id": row.host,
        "status": row.status,
        "sync_state": row.sync_state,
        "sync_revision": row.proven_revision,
        "sync_since": clock.shown(row.sync_since or row.updated_at),
        "sync_reason": None,
        "reason": None,
        "revision_number": row.revision_number,
        "updated_at": clock.shown(row.updated_at),
    }
