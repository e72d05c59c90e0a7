"""The kinds of resources: how each is listed, shown, written and deleted."""

import dataclasses
import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent_flows.report import FlowName, PortStatus, SyncState, TaskState
from agent_flows.server import bodies, clock, desired, desired_ports, models
from agent_flows.server.agents import Rules
from agent_flows.server.api import agent_view, port_view, views
from agent_flows.server.api.agent_view import Seen
from agent_flows.server.api.listing import Filter, Listing, Order, View
from agent_flows.server.casts import Casts


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


def _rows(view: Callable[..., View]) -> Callable[[Session, Sequence[Any]], list[View]]:
    return lambda session, rows: [view(*row) for row in rows]


def _text(*columns: Any) -> dict[str, Filter]:
    return {column.key: Filter(column) for column in columns}


def _simple(
    plural: str,
    model: Any,
    view: Callable[..., View],
    fields: str,
    filters: Mapping[str, Filter] | None = None,
) -> Listing:
    """A listing of the rows of one table, by id."""
    given = {**_text(model.id, model.name), **(filters or {})}
    return Listing(
        plural=plural,
        query=sa.select(model),
        view=_rows(view),
        fields=_names(fields),
        filters=given,
        sort_keys={name: each.column for name, each in given.items() if name != "binding:host_id"},
        default=(Order(model.id),),
        found=lambda resource_id: model.id == resource_id,
    )


def _names(names: str) -> frozenset[str]:
    return frozenset(names.split())


def _values(enumeration: Any) -> frozenset[str]:
    return frozenset(each.value for each in enumeration)


def _no_casts(
    delete: Callable[[Session, str], None],
) -> Callable[[Session, str, datetime.datetime], Casts]:
    def deleted(session: Session, resource_id: str, now: datetime.datetime) -> Casts:
        delete(session, resource_id)
        return Casts()

    return deleted


_Port, _Task, _Attempt = models.Port, models.Task, models.Attempt

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
    """Ports; the reason of one depends on whether its agent lives."""

    def view(session: Session, rows: Sequence[Any]) -> list[View]:
        return port_view.ports(session, [row[0] for row in rows], Seen(rules, clock.now()))

    listing = _simple(
        "ports",
        _Port,
        views.port,
        "id name network_id mac_address fixed_ips allowed_address_pairs security_groups "
        "port_security_enabled admin_state_up device_owner binding:host_id status sync_state "
        "reason revision_number updated_at",
        {
            **_text(_Port.network_id, _Port.mac_address, _Port.device_owner),
            "binding:host_id": Filter(_Port.host),
            "status": Filter(_Port.status, _values(PortStatus)),
            "sync_state": Filter(_Port.sync_state, _values(SyncState)),
        },
    )
    return Kind(
        "ports",
        "port",
        dataclasses.replace(listing, view=view),
        Writing(bodies.Port, desired_ports.put_port, desired_ports.delete_port),
    )


def _task_id(task_id: str) -> sa.ColumnElement[bool]:
    flow_id, _, position = task_id.rpartition("-")
    place = int(position) if position.isascii() and position.isdigit() and len(position) < 3 else -1
    return sa.and_(_Attempt.id == flow_id, _Task.position == place)


_started = sa.func.coalesce(_Task.started_at, _Attempt.started_at)
TASKS = Kind(
    "tasks",
    "task",
    Listing(
        plural="tasks",
        query=sa.select(_Attempt, _Task).join(_Task, _Task.ordinal == _Attempt.ordinal),
        view=_rows(views.task),
        fields=_names(
            "id resource_type resource_id host flow flow_id name step order task_state attempt "
            "revision started_at duration error"
        ),
        filters={
            **_text(_Attempt.resource_type, _Attempt.resource_id, _Attempt.host),
            "flow": Filter(_Attempt.flow, _values(FlowName)),
            "flow_id": Filter(_Attempt.id),
            **_text(_Task.name, _Task.step),
            "task_state": Filter(_Task.task_state, _values(TaskState)),
        },
        sort_keys={
            # A task that was never reached is sorted by the start of its
            # attempt, and as if it had taken less than any other.
            "started_at": _started,
            "duration": sa.func.coalesce(_Task.duration, -1.0),
            "resource_id": _Attempt.resource_id,
            "host": _Attempt.host,
            "flow": _Attempt.flow,
            "attempt": _Attempt.attempt,
            "revision": _Attempt.revision,
            "name": _Task.name,
            "step": _Task.step,
            "order": _Task.position,
            "task_state": _Task.task_state,
        },
        default=(Order(_Attempt.ordinal, descending=True), Order(_Task.position)),
        found=_task_id,
    ),
)


def agents(rules: Rules) -> Kind:
    """Agents; ``rules`` say when one is dead."""
    agent = models.Agent

    def view(session: Session, rows: Sequence[Any]) -> list[View]:
        return agent_view.shown(session, [row[0] for row in rows], Seen(rules, clock.now()))

    return Kind(
        "agents",
        "agent",
        Listing(
            plural="agents",
            query=sa.select(agent),
            view=view,
            fields=_names("id host alive heartbeat_at sequence state conflict ports"),
            filters=_text(agent.host),
            sort_keys={"host": agent.host, "heartbeat_at": agent.heartbeat_at},
            default=(Order(agent.host),),
            found=lambda host: agent.host == host,
        ),
    )
