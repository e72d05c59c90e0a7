"""The kinds of resources: how each is listed, shown, written and deleted."""

import dataclasses
import datetime
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent_flows.report import PortStatus, SyncState
from agent_flows.server.core import agent_view, clock, problems, rollup, tasks
from agent_flows.server.core.casts import Casts
from agent_flows.server.core.listing import (
    Filter,
    Listing,
    Order,
    View,
    each_row,
    prefix_filter,
    text_filters,
    values,
)
from agent_flows.server.core.liveness import Liveness, Rules
from agent_flows.server.core.models import Agent, Attempt
from agent_flows.server.core.shape import Shape, about
from agent_flows.server.standalone import (
    bodies,
    desired,
    desired_ports,
    models,
    out_of_sync,
    port_state,
    realised,
)
from agent_flows.server.standalone.api import port_view, views


@dataclass(frozen=True)
class Writing:
    """How one object is written: the body's type, and the transactions of PUT and DELETE."""

    body: type[Any]
    put: Callable[[Session, desired.Placed[Any], datetime.datetime], desired.Written]
    delete: Callable[[Session, str, datetime.datetime], Casts]

    @property
    def shape(self) -> Shape:
        """What a request has of one object."""
        # The schema of a body is only for those who read a description.
        from agent_flows.server.standalone.api.openapi import body_of

        return body_of(self.body)


@dataclass(frozen=True)
class Kind:
    """One kind of resource, under ``/<path>``; read-only without ``writing``."""

    path: str
    singular: str
    listing: Listing
    writing: Writing | None = None

    @property
    def a_name(self) -> str:
        """One of them, in words."""
        article = "an" if self.singular[0] in "aeiou" else "a"
        return f"{article} {self.singular.replace('_', ' ')}"


def _simple(
    plural: str,
    model: Any,
    view: Callable[..., View],
    shapes: Mapping[str, Shape],
    filters: Mapping[str, Filter] | None = None,
) -> Listing:
    """A listing of the rows of one table, by id."""
    given = {**text_filters(model.id, model.name), **(filters or {})}
    sort_keys = {name: each.column for name, each in given.items() if name != "binding:host_id"}
    return Listing(
        plural=plural,
        query=sa.select(model),
        view=each_row(view),
        shapes=shapes,
        filters={**given, "id_prefix": prefix_filter(model.id)},
        sort_keys=sort_keys,
        default=(Order(model.id),),
        found=lambda resource_id: model.id == resource_id,
    )


def _with_sync(listing: Listing, ports_of: Callable[[Collection[str]], sa.Subquery]) -> Listing:
    """Objects whose ``sync`` is a roll-up of their ports."""

    def view(session: Session, rows: Sequence[Any], fields: frozenset[str]) -> list[View]:
        shown = listing.view(session, rows, fields)
        if "sync" in fields and shown:
            found = rollup.of(session, ports_of([each["id"] for each in shown]))
            for each in shown:
                each["sync"] = found.get(each["id"]) or rollup.nothing()
        return shown

    shapes = {**listing.shapes, "sync": about(rollup.SHAPE, "how far the ports are in sync")}
    return dataclasses.replace(listing, view=view, shapes=shapes, on_request=frozenset({"sync"}))


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
    _with_sync(
        _simple(
            "networks",
            models.Network,
            views.network,
            views.NETWORK,
        ),
        realised.of_networks,
    ),
    Writing(bodies.Network, desired.put_networks, _no_casts(desired.delete_network)),
)

ADDRESS_GROUPS = Kind(
    "address-groups",
    "address_group",
    _simple("address_groups", models.AddressGroup, views.address_group, views.ADDRESS_GROUP),
    Writing(
        bodies.AddressGroup, desired.put_address_groups, _no_casts(desired.delete_address_group)
    ),
)

SECURITY_GROUPS = Kind(
    "security-groups",
    "security_group",
    _with_sync(
        _simple(
            "security_groups",
            models.SecurityGroup,
            views.security_group,
            views.SECURITY_GROUP,
        ),
        realised.of_groups,
    ),
    Writing(bodies.SecurityGroup, desired.put_security_groups, desired.delete_security_group),
)


def ports(rules: Rules) -> Kind:
    """Ports; the reason of one depends on whether its agent is alive."""

    def view(session: Session, rows: Sequence[Any], fields: frozenset[str]) -> list[View]:
        liveness = Liveness(rules, clock.now())
        return port_view.ports(session, [row[0] for row in rows], liveness, fields)

    listing = _simple(
        "ports",
        _Port,
        views.port,
        views.PORT,
        {
            **text_filters(_Port.network_id, _Port.mac_address, _Port.device_owner),
            "binding:host_id": Filter(_Port.host),
            "status": Filter(_Port.status, values(PortStatus)),
            "sync_state": Filter(
                port_state.SYNC_STATE, values(SyncState), matches=port_state.shows
            ),
        },
    )
    return Kind(
        "ports",
        "port",
        dataclasses.replace(listing, view=view),
        Writing(bodies.Port, desired_ports.put_ports, desired_ports.delete_port),
    )


TASKS = Kind(
    "tasks",
    "task",
    dataclasses.replace(
        tasks.LISTING,
        filters={
            **tasks.LISTING.filters,
            "resource_id": Filter(Attempt.resource_id, matches=port_state.tasks_of),
        },
    ),
)


PROBLEMS = Kind("problems", "problem", problems.listing(out_of_sync.affected()))


def problems_of(resource_ids: Sequence[str]) -> Listing:
    """As :data:`PROBLEMS`, of these resources."""
    return problems.listing(out_of_sync.affected_by(resource_ids))


def agents(rules: Rules) -> Kind:
    """Agents; ``rules`` define when one is dead."""

    def view(session: Session, rows: Sequence[Any], fields: frozenset[str]) -> list[View]:
        liveness = Liveness(rules, clock.now())
        hosts = [row[0] for row in rows]
        return agent_view.shown(session, hosts, liveness, port_state.SHOWN)

    return Kind(
        "agents",
        "agent",
        Listing(
            plural="agents",
            query=sa.select(Agent),
            view=view,
            shapes=agent_view.SHAPES,
            filters=text_filters(Agent.host),
            sort_keys={"host": Agent.host, "heartbeat_at": Agent.heartbeat_at},
            default=(Order(Agent.host),),
            found=lambda host: Agent.host == host,
        ),
    )
