"""The kinds of resources: how each is listed, shown, written and deleted."""

import dataclasses
import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent_flows.report import PortStatus, SyncState
from agent_flows.server.core import agent_view, clock, tasks
from agent_flows.server.core.casts import Casts
from agent_flows.server.core.listing import (
    Filter,
    Listing,
    Order,
    View,
    each_row,
    names,
    text_filters,
    values,
)
from agent_flows.server.core.liveness import Liveness, Rules
from agent_flows.server.core.models import Agent
from agent_flows.server.standalone import bodies, desired, desired_ports, groups_at_hosts, models
from agent_flows.server.standalone.api import port_view, views


@dataclass(frozen=True)
class Writing:
    """How one object is written: the body's type, and the transactions of PUT and DELETE."""

    body: type[Any]
    put: Callable[[Session, Any, datetime.datetime], desired.Written]
    delete: Callable[[Session, str, datetime.datetime], Casts]


@dataclass(frozen=True)
class Kind:
    """One kind of resource, under ``/<path>``; read-only without ``writing``."""

    path: str
    singular: str
    listing: Listing
    writing: Writing | None = None


def _simple(
    plural: str,
    model: Any,
    view: Callable[..., View],
    fields: str,
    filters: Mapping[str, Filter] | None = None,
) -> Listing:
    """A listing of the rows of one table, by id."""
    given = {**text_filters(model.id, model.name), **(filters or {})}
    return Listing(
        plural=plural,
        query=sa.select(model),
        view=each_row(view),
        fields=names(fields),
        filters=given,
        sort_keys={name: each.column for name, each in given.items() if name != "binding:host_id"},
        default=(Order(model.id),),
        found=lambda resource_id: model.id == resource_id,
    )


def _no_casts(
    delete: Callable[[Session, str], None],
) -> Callable[[Session, str, datetime.datetime], Casts]:
    def deleted(session: Session, resource_id: str, now: datetime.datetime) -> Casts:
        delete(session, resource_id)
        return Casts()

    return deleted


_Port = models.Port

NETWORKS = Kind(
    "networks",
    "network",
    _simple(
        "networks",
        models.Network,
        views.network,
        "id name network_type segmentation_id physical_network mtu",
    ),
    Writing(bodies.Network, desired.put_network, _no_casts(desired.delete_network)),
)

ADDRESS_GROUPS = Kind(
    "address-groups",
    "address_group",
    _simple("address_groups", models.AddressGroup, views.address_group, "id name addresses"),
    Writing(
        bodies.AddressGroup, desired.put_address_group, _no_casts(desired.delete_address_group)
    ),
)

SECURITY_GROUPS = Kind(
    "security-groups",
    "security_group",
    _simple(
        "security_groups",
        models.SecurityGroup,
        views.security_group,
        "id name stateful security_group_rules revision_number",
    ),
    Writing(
        bodies.SecurityGroup, desired.put_security_group, _no_casts(desired.delete_security_group)
    ),
)


def ports(rules: Rules) -> Kind:
    """Ports; the reason of one depends on whether its agent is alive."""

    def view(session: Session, rows: Sequence[Any]) -> list[View]:
        return port_view.ports(session, [row[0] for row in rows], Liveness(rules, clock.now()))

    listing = _simple(
        "ports",
        _Port,
        views.port,
        "id name network_id mac_address fixed_ips allowed_address_pairs security_groups "
        "port_security_enabled admin_state_up device_owner binding:host_id status sync_state "
        "reason revision_number updated_at",
        {
            **text_filters(_Port.network_id, _Port.mac_address, _Port.device_owner),
            "binding:host_id": Filter(_Port.host),
            "status": Filter(_Port.status, values(PortStatus)),
            "sync_state": Filter(groups_at_hosts.SYNC_STATE, values(SyncState)),
        },
    )
    return Kind(
        "ports",
        "port",
        dataclasses.replace(listing, view=view),
        Writing(bodies.Port, desired_ports.put_port, desired_ports.delete_port),
    )


TASKS = Kind("tasks", "task", tasks.LISTING)


def agents(rules: Rules) -> Kind:
    """Agents; ``rules`` define when one is dead."""

    def view(session: Session, rows: Sequence[Any]) -> list[View]:
        liveness = Liveness(rules, clock.now())
        hosts = [row[0] for row in rows]
        return agent_view.shown(session, hosts, liveness, _Port, groups_at_hosts.SYNC_STATE)

    return Kind(
        "agents",
        "agent",
        Listing(
            plural="agents",
            query=sa.select(Agent),
            view=view,
            fields=names("id host alive heartbeat_at sequence state conflict desired ports"),
            filters=text_filters(Agent.host),
            sort_keys={"host": Agent.host, "heartbeat_at": Agent.heartbeat_at},
            default=(Order(Agent.host),),
            found=lambda host: Agent.host == host,
        ),
    )
