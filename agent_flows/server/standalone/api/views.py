"""How rows are shown: Neutron's names, times in ISO 8601, UTC."""

from agent_flows.server.core import clock
from agent_flows.server.core.listing import View
from agent_flows.server.standalone import models
from agent_flows.server.standalone.desired import RULE_FIELDS
from agent_flows.spec import PROTOCOLS

# Of several names of a protocol the one Neutron's documentation uses, which is
# the last in that table's order.
_PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}


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


def port(row: models.Port, sync_state: str, reason: str | None) -> View:
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
        "sync_state": sync_state,
        "reason": reason,
        "revision_number": row.revision_number,
        "updated_at": clock.shown(row.updated_at),
    }
