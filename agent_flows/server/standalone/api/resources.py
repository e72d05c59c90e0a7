"""The falcon resources: collections, items, resyncs, health and metrics."""

from collections.abc import Callable, Mapping
from concurrent.futures import TimeoutError as NotInTime
from dataclasses import dataclass
from urllib.parse import urlencode

import falcon
import pydantic
from prometheus_client import CONTENT_TYPE_LATEST

from agent_flows.rpc import codec
from agent_flows.server.core import agents, clock, problems
from agent_flows.server.core.casts import Caster, Casts, to_hosts
from agent_flows.server.core.database import Database, retried
from agent_flows.server.core.errors import Conflict, NotFound, Unavailable
from agent_flows.server.core.listing import Listing, Params, View, one, page
from agent_flows.server.core.liveness import Liveness, Rules
from agent_flows.server.core.metrics import Metrics
from agent_flows.server.core.models import Agent
from agent_flows.server.core.shape import TEXT, Shape, many, one_of, record
from agent_flows.server.standalone import bodies, models, specs
from agent_flows.server.standalone.api import document
from agent_flows.server.standalone.api.kinds import Kind, Writing, problems_of
from agent_flows.server.standalone.api.operation import (
    BODY,
    Answer,
    Operation,
    Operations,
    list_parameters,
    page_of,
    shown,
    under,
)
from agent_flows.server.standalone.health import Check
from agent_flows.validation import UUID_PATTERN, Invalid, Uuid, parse

_CAST_SECONDS = 5.0
_UUID: pydantic.TypeAdapter[str] = pydantic.TypeAdapter(Uuid)
UUID_SHAPE = {"type": "string", "pattern": UUID_PATTERN}
"""The id of what is written."""


@dataclass(frozen=True)
class Api:
    """What every resource works on."""

    database: Database
    caster: Caster
    max_limit: int
    max_body_bytes: int
    max_objects: int
    rules: Rules

    def check_alive(self, host: str, agent: Agent | None) -> None:
        """Raises Conflict unless the agent of ``host`` is alive."""
        if agent is None:
            message = f"no agent was ever seen on host {host}; nothing was sent"
            raise Conflict("binding:host_id", message)
        if not Liveness(self.rules, clock.now()).alive(agent):
            since = agent.heartbeat_at.isoformat(timespec="seconds")
            message = f"the agent of host {host} has been silent since {since}; nothing was sent"
            raise Conflict(None, message)

    def ask(self, casts: Casts, host: str) -> None:
        """Send a request to the agent of ``host`` now; raises Unavailable if that fails."""
        sent = self.caster.send(casts)
        try:
            sent.result(_CAST_SECONDS)
        except NotInTime:
            raise Unavailable(
                f"the message bus does not answer; nothing was sent to {host}"
            ) from None
        except Exception as exc:
            raise Unavailable(f"could not send to the agent of {host}: {exc}") from exc


def _params(request: falcon.Request) -> Params:
    return {
        name: value if isinstance(value, list) else [value]
        for name, value in request.params.items()
    }


class _Resource:
    def __init__(self, api: Api, kind: Kind) -> None:
        self._api = api
        self._kind = kind

    @property
    def _one(self) -> Shape:
        """An answer with one resource."""
        listing = self._kind.listing
        return under(self._kind.singular, shown(self._kind.singular, listing, listing.fields))


class Collection(_Resource):
    """``GET /<path>``: a page of the resources."""

    def policy(self, method: str) -> str:
        return "read"

    def operations(self) -> Operations:
        listing = self._kind.listing
        # Which of them are there depends on the parameter ``fields``.
        shape = page_of(listing, shown(self._kind.singular, listing))
        answer = Answer("a page", shape, first=f"/{listing.plural}/0/id")
        name = listing.plural.replace("_", " ")
        parameters = list_parameters(listing)
        return {"GET": Operation(f"List {name}.", {200: answer}, [400], parameters)}

    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        params = _params(request)
        listing = self._listing(params)
        with self._api.database.reader() as session:
            found = page(session, listing, params, self._api.max_limit)
        response.media = {listing.plural: found.items}
        if found.marker is not None:
            query = urlencode({**params, "marker": [found.marker]}, doseq=True)
            href = f"{request.prefix}{request.path}?{query}"
            response.media[f"{listing.plural}_links"] = [{"rel": "next", "href": href}]

    def _listing(self, params: Params) -> Listing:
        return self._kind.listing


class Problems(Collection):
    """``GET /problems``: of all ports, or of the resources that the request names."""

    def _listing(self, params: Params) -> Listing:
        named = params.get(problems.RESOURCE)
        return super()._listing(params) if named is None else problems_of(named)


class Item(_Resource):
    """``GET /<path>/{id}``."""

    def policy(self, method: str) -> str:
        return "read" if method in ("GET", "HEAD") else "write"

    def operations(self) -> Operations:
        answer = Answer("it", self._one)
        return {"GET": Operation(f"Show {self._kind.a_name}.", {200: answer}, [400, 404])}

    def on_get(self, request: falcon.Request, response: falcon.Response, resource_id: str) -> None:
        _check_no_parameters(request)
        with self._api.database.reader() as session:
            view = one(session, self._kind.listing, resource_id)
        if view is None:
            raise NotFound(self._kind.singular, resource_id)
        response.media = {self._kind.singular: view}


class WritableItem(Item):
    """``PUT`` creates or replaces, ``DELETE`` deletes; casts are sent after the commit."""

    def __init__(self, api: Api, kind: Kind, writing: Writing) -> None:
        super().__init__(api, kind)
        self._writing = writing

    def operations(self) -> Operations:
        kind = self._kind
        one = under(kind.singular, shown(kind.singular, kind.listing, kind.listing.unasked))
        return {
            **super().operations(),
            "PUT": Operation(
                f"Create {kind.a_name}, or replace it: what is left out gets its default.",
                {200: Answer("replaced", one), 201: Answer("created", one)},
                [*BODY, 409],
                body=under(kind.singular, self._writing.shape),
                path_shape=UUID_SHAPE,
            ),
            "DELETE": Operation(
                f"Delete {kind.a_name}.",
                {204: Answer("deleted")},
                [400, 404, 409],
                path_shape=UUID_SHAPE,
            ),
        }

    def on_put(self, request: falcon.Request, response: falcon.Response, resource_id: str) -> None:
        _check_id(resource_id)
        raw = document.read(request, self._kind.singular, self._api.max_body_bytes)
        created, view, casts = self._put(resource_id, raw)
        self._api.caster.cast(casts)
        response.status = falcon.HTTP_201 if created else falcon.HTTP_200
        response.media = {self._kind.singular: view}

    @retried
    def _put(self, resource_id: str, raw: object) -> tuple[bool, View, Casts]:
        body = bodies.read(self._writing.body, resource_id, raw)
        with self._api.database.writer() as session:
            written = self._writing.put(session, [("", body)], clock.now())
            session.expire_all()
            listing = self._kind.listing
            view = one(session, listing, resource_id, listing.unasked)
        return bool(written.created), view or {}, written.casts

    def on_delete(
        self, request: falcon.Request, response: falcon.Response, resource_id: str
    ) -> None:
        _check_id(resource_id)
        self._api.caster.cast(self._delete(resource_id))
        response.status = falcon.HTTP_204

    @retried
    def _delete(self, resource_id: str) -> Casts:
        with self._api.database.writer() as session:
            return self._writing.delete(session, resource_id, clock.now())


class Resync(_Resource):
    """``POST /ports/{id}/resync``: the agent wires the port again, even if it is wired.

    202 when the request was sent to its live agent; the outcome is in the port's
    tasks. 409 if the host has no live agent.
    """

    host_field = "binding:host_id"
    summary = "Have the agent wire the port again, even if it is wired."

    def policy(self, method: str) -> str:
        return "write"

    def operations(self) -> Operations:
        answer = Answer("sent to the live agent; the outcome is in the tasks", self._one)
        return {"POST": Operation(self.summary, {202: answer}, [404, 409, 415])}

    def on_post(self, request: falcon.Request, response: falcon.Response, resource_id: str) -> None:
        singular = self._kind.singular
        with self._api.database.reader() as session:
            item = one(session, self._kind.listing, resource_id)
            if item is None:
                raise NotFound(singular, resource_id)
            host = item[self.host_field]
            if host is None:
                raise Conflict(self.host_field, f"{singular} {resource_id} is bound to no host")
            self._api.check_alive(host, session.get(Agent, host))
        self._api.ask(self._casts(host, resource_id), host)
        response.status = falcon.HTTP_202
        response.media = {singular: item}

    def _casts(self, host: str, resource_id: str) -> Casts:
        return Casts(resyncs=to_hosts([host], [resource_id]))


class Specs(_Resource):
    """``GET /ports/{id}/specs``: what the port's agent gets of it, as the bus carries it."""

    def policy(self, method: str) -> str:
        return "read"

    def operations(self) -> Operations:
        shape = {
            "type": "object",
            "properties": {"kind": one_of(codec.KINDS), "version": TEXT, "id": UUID_SHAPE},
            "required": ["kind", "version", "id"],
        }
        answer = Answer("the port and the groups that it depends on", under("specs", many(shape)))
        return {
            "GET": Operation(
                "Show what the port's agent gets of it.", {200: answer}, [400, 404, 409]
            )
        }

    def on_get(self, request: falcon.Request, response: falcon.Response, resource_id: str) -> None:
        _check_no_parameters(request)
        with self._api.database.reader() as session:
            port = session.get(models.Port, resource_id)
            if port is None:
                raise NotFound(self._kind.singular, resource_id)
            if port.host is None:
                raise Conflict("binding:host_id", f"port {resource_id} is bound to no host")
            found = specs.read(session, port.host, [resource_id])
        response.media = {"specs": [codec.to_wire(each) for each in found]}


class AgentItem(Item):
    """``GET /agents/{host}``, and ``DELETE``: forget an agent that is gone.

    The next heartbeat of a live one brings it back.
    """

    def operations(self) -> Operations:
        return {
            **super().operations(),
            "DELETE": Operation(
                "Forget an agent that is gone; the next heartbeat of a live one brings it back.",
                {204: Answer("forgotten")},
                [404],
            ),
        }

    def on_delete(
        self, request: falcon.Request, response: falcon.Response, resource_id: str
    ) -> None:
        self._delete(resource_id)
        response.status = falcon.HTTP_204

    @retried
    def _delete(self, host: str) -> None:
        with self._api.database.writer() as session:
            if one(session, self._kind.listing, host) is None:
                raise NotFound("agent", host)
            agents.forget(session, host)


class AgentResync(Resync):
    """``POST /agents/{host}/resync``: the agent wires every port of its host again.

    202 and 409 as for a port.
    """

    host_field = "host"
    summary = "Have the agent wire every port of its host again."

    def _casts(self, host: str, resource_id: str) -> Casts:
        return Casts(hosts={host: frozenset()})


def _check_no_parameters(request: falcon.Request) -> None:
    for name in request.params:
        raise Invalid(name, request.params[name], "unknown parameter; this request has none")


def _check_id(resource_id: str) -> None:
    try:
        parse(_UUID, resource_id)
    except Invalid:
        raise Invalid("id", resource_id, "must be a UUID in lower case") from None


class Health:
    """``GET /healthz``: whether everything this process needs works.

    200, or 503 and what does not. Hosts in trouble do not make this process
    unhealthy: 200 and ``degraded``, with ``agents``, a line for each host. They
    are named only with ``names``: any caller may read health.
    """

    def __init__(
        self,
        checks: Mapping[str, Check],
        troubled: Callable[[], Mapping[str, str]],
        *,
        names: bool,
    ) -> None:
        self._checks = checks
        self._troubled = troubled
        self._names = names

    def policy(self, method: str) -> str:
        return "health"

    def operations(self) -> Operations:
        by_name = {"type": "object", "additionalProperties": TEXT}
        shape = record({"status": one_of(("ok", "degraded", "failing")), "failures": by_name})
        shape = {**shape, "properties": {**shape["properties"], "agents": by_name}}
        return {
            "GET": Operation(
                "Show whether everything that this process needs works.",
                {
                    200: Answer("it works; `degraded` if hosts are in trouble", shape),
                    503: Answer("`failures` has what does not work", shape),
                },
            )
        }

    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        failures = {name: failure for name, check in self._checks.items() if (failure := check())}
        media: dict[str, object] = {"status": "failing" if failures else "ok", "failures": failures}
        # Without its database this process knows nothing of the hosts.
        troubled = {} if failures else self._troubled()
        if troubled:
            media["status"] = "degraded"
            if self._names:
                media["agents"] = troubled
        response.status = falcon.HTTP_503 if failures else falcon.HTTP_200
        response.media = media


class MetricsResource:
    """``GET /metrics``: Prometheus' text format."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def policy(self, method: str) -> str:
        return "metrics"

    def operations(self) -> Operations:
        answer = Answer("in Prometheus' text format", TEXT, "text/plain")
        return {"GET": Operation("Show metrics.", {200: answer})}

    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        response.data = self._metrics.text()
        response.content_type = CONTENT_TYPE_LATEST
