"""Specs to compile, with the same ids in every run."""

from collections.abc import Mapping

from agent_flows.openflow.attachment import Attachment
from agent_flows.spec import PortSpec, SecurityGroupSpec
from lab import model
from lab.model import numbered_id


def group(n: int, *rules: Mapping[str, object], **fields: object) -> SecurityGroupSpec:
    return model.group(*rules, **{"id": numbered_id(2, n), **fields})


def port(n: int, *groups: SecurityGroupSpec, **fields: object) -> PortSpec:
    values = {
        "id": numbered_id(1, n),
        "mac_address": f"fa:16:3e:00:00:{n:02x}",
        "fixed_ips": [f"10.0.0.{n}"],
        **fields,
    }
    return model.port(*groups, **values)


def attached(port_: PortSpec, ofport: int, vlan: int = 1) -> Attachment:
    return Attachment(port_.id, ofport, vlan)
