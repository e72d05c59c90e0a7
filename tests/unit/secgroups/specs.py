"""Specs to compile, as the wire would bring them."""

import uuid
from collections.abc import Mapping

from agent_flows.openflow.attachment import Attachment
from agent_flows.rpc import codec
from agent_flows.spec import PortSpec, SecurityGroupSpec


def number(kind: int, n: int) -> str:
    return str(uuid.UUID(int=kind << 64 | n))


def group(n: int, *rules: Mapping[str, object], **fields: object) -> SecurityGroupSpec:
    raw = {"kind": "security_group", "version": "1.0", "id": number(2, n), "revision": 1,
           "rules": list(rules), **fields}  # fmt: skip
    made = codec.spec_from_wire(raw)
    assert isinstance(made, SecurityGroupSpec)
    return made


def port(n: int, *groups: SecurityGroupSpec, **fields: object) -> PortSpec:
    raw = {
        "kind": "port", "version": "1.0", "id": number(1, n), "revision": 1, "host": "here",
        "network": {"id": number(3, 1), "network_type": "local"},
        "mac_address": f"fa:16:3e:00:00:{n:02x}", "fixed_ips": [f"10.0.0.{n}"],
        "security_groups": [each.id for each in groups], **fields,
    }  # fmt: skip
    made = codec.spec_from_wire(raw)
    assert isinstance(made, PortSpec)
    return made


def attached(port_: PortSpec, ofport: int, vlan: int = 1) -> Attachment:
    return Attachment(port_.id, ofport, vlan)
