"""``sync`` of a security group and of a network: how far their ports are in sync.

A resource below each: Neutron gives those who extend a security group neither the request nor its
context, so it would be read for every group of every list, and for every user.
"""

from typing import Any

import sqlalchemy as sa
from neutron import policy
from neutron.db import models_v2
from neutron.db.models import securitygroup
from sqlalchemy.orm import Session

from agent_flows.neutron.server import api_definition, policies
from agent_flows.neutron.server.models import GatedPort
from agent_flows.neutron.server.port_sync import SINCE
from agent_flows.server.core import rollup
from agent_flows.server.core.listing import View

_Row, _Port = GatedPort, models_v2.Port
_Binding = securitygroup.SecurityGroupPortBinding


def sync(session: Session, context: Any, resource: str, resource_id: str) -> View:
    """Of a security group or network what ``context`` may read: a project of its own ports, for
    others may have ports in a group or on a network that is shared."""
    query = _PORTS_OF[resource].where(_KEY[resource] == resource_id)
    if not context.is_admin:
        query = query.where(_Port.project_id == context.project_id)
    found = rollup.of(session, query.subquery("ports")).get(resource_id) or rollup.nothing()
    owner = {"project_id": context.project_id, "tenant_id": context.project_id}
    if policy.check(context, policies.GET_HOST, owner):
        return found
    return {"ports": found["ports"]}


def _columns(key: Any) -> list[Any]:
    # What a group's revision was on a host is in no table: each report is compared as it comes.
    revision = sa.cast(sa.null(), sa.BigInteger()).label("revision")
    return [key.label("key"), _Row.host, _Row.sync_state, SINCE.label("since"), revision]


_KEY: dict[str, Any] = {
    api_definition.SECURITY_GROUP: _Binding.security_group_id,
    api_definition.NETWORK: _Port.network_id,
}
_PORTS_OF: dict[str, sa.Select[Any]] = {
    api_definition.SECURITY_GROUP: sa.select(*_columns(_Binding.security_group_id))
    .join_from(_Binding, _Row, _Row.port_id == _Binding.port_id)
    .join(_Port, _Port.id == _Row.port_id),
    api_definition.NETWORK: sa.select(*_columns(_Port.network_id)).join_from(
        _Port, _Row, _Row.port_id == _Port.id
    ),
}
