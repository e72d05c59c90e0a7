"""The WSGI application: routes, errors and access."""

# falcon.App is generic since falcon 4.2.
from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import falcon
from falcon.media import JSONHandler
from oslo_config import cfg
from oslo_log import log

from agent_flows import conf as options
from agent_flows.page import web
from agent_flows.page.pages import Missing
from agent_flows.printable import printable
from agent_flows.server.core import agent_view, clock
from agent_flows.server.core.casts import Caster
from agent_flows.server.core.database import UNREACHABLE, Database
from agent_flows.server.core.liveness import Liveness
from agent_flows.server.core.metrics import Metrics
from agent_flows.server.core.settings import of_the_agents
from agent_flows.server.standalone import auth
from agent_flows.server.standalone.api import kinds, page
from agent_flows.server.standalone.api.bulk import Documents, WritableCollection
from agent_flows.server.standalone.api.description import Described, Description
from agent_flows.server.standalone.api.operation import REFUSALS
from agent_flows.server.standalone.api.resources import (
    AgentItem,
    AgentResync,
    Api,
    Collection,
    Health,
    Item,
    MetricsResource,
    Problems,
    Resync,
    Specs,
    WritableItem,
)
from agent_flows.server.standalone.health import Check

LOG = log.getLogger(__name__)

_WRITING = frozenset({"PUT", "POST", "PATCH", "DELETE"})
_METHODS = _WRITING | {"GET", "HEAD", "OPTIONS"}


def application(
    conf: cfg.ConfigOpts,
    database: Database,
    caster: Caster,
    metrics: Metrics,
    checks: Mapping[str, Check],
) -> auth.Wsgi:
    """The REST API; ``checks`` is what ``/healthz`` looks at.

    Raises :class:`agent_flows.server.standalone.auth.Misconfigured` if it would be open
    to the network without authentication.
    """
    auth.check_bind(conf)
    settings = conf[options.API]
    keystone = settings.auth_strategy == "keystone"
    guard = _guard(conf) if keystone else auth.OwnPages()
    middleware: list[Any] = [_Timing(metrics), _Json(), guard]
    app = falcon.App(middleware=middleware)
    app.req_options.keep_blank_qs_values = True
    app.req_options.auto_parse_qs_csv = False
    app.req_options.strip_url_path_trailing_slash = True
    app.resp_options.media_handlers[falcon.MEDIA_JSON] = JSONHandler(dumps=_dumps)
    app.set_error_serializer(_serialize)
    _handle_errors(app)
    rules = of_the_agents(conf)
    api = Api(
        database, caster, settings.max_limit, settings.max_body_bytes, settings.max_objects, rules
    )
    resources = routes(api)

    def troubled() -> dict[str, str]:
        with database.reader() as session:
            return agent_view.troubled(session, Liveness(rules, clock.now()))

    resources["/healthz"] = Health(checks, troubled, names=not keystone)
    resources["/metrics"] = MetricsResource(metrics)
    resources["/openapi.json"] = Description(resources)
    for path, resource in {**resources, **page.routes(api)}.items():
        app.add_route(path, resource)
    return _with_tokens(app, conf) if keystone else app


def _with_tokens(app: auth.Wsgi, conf: cfg.ConfigOpts) -> auth.Wsgi:
    from agent_flows.server.standalone import tokens

    return tokens.checked(app, conf)


def _guard(conf: cfg.ConfigOpts) -> auth.Guard:
    # With oslo.policy's rules and requests it takes 4.2 MiB, which only Keystone needs.
    from agent_flows.server import policies

    return auth.Guard(policies.enforcer(conf))


def routes(api: Api) -> dict[str, Described]:
    """The resources about desired state and what became of it, by their paths."""
    found: dict[str, Described] = {}
    ports, agents = kinds.ports(api.rules), kinds.agents(api.rules)
    for kind in (
        kinds.NETWORKS,
        kinds.ADDRESS_GROUPS,
        kinds.SECURITY_GROUPS,
        ports,
        kinds.TASKS,
        kinds.PROBLEMS,
        agents,
    ):
        if kind.writing is not None:
            item: Item = WritableItem(api, kind, kind.writing)
            collection: Collection = WritableCollection(api, kind, kind.writing)
        else:
            item = AgentItem(api, kind) if kind is agents else Item(api, kind)
            collection = Problems(api, kind) if kind is kinds.PROBLEMS else Collection(api, kind)
        found[f"/{kind.path}"] = collection
        found[f"/{kind.path}/{{resource_id}}"] = item
    # In the order of references.
    written = (kinds.NETWORKS, kinds.ADDRESS_GROUPS, kinds.SECURITY_GROUPS, ports)
    found["/documents"] = Documents(api, written)
    found["/ports/{resource_id}/resync"] = Resync(api, ports)
    found["/ports/{resource_id}/specs"] = Specs(api, ports)
    found["/agents/{resource_id}/resync"] = AgentResync(api, agents)
    return found


def _dumps(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _error(
    request: falcon.Request,
    response: falcon.Response,
    kind: str,
    message: str,
    field: str | None = None,
) -> None:
    if web.is_page(request):
        page.refuse(response, kind, message)
    else:
        # It may quote what was sent, such as a path.
        response.media = {"error": {"type": kind, "message": printable(message), "field": field}}


def _handle_errors(app: falcon.App[Any, Any]) -> None:
    def handle(error: type[Exception], status: str, kind: str) -> None:
        """Answer the exception's message, and the field at fault if it names one."""

        def handler(
            request: falcon.Request, response: falcon.Response, exc: Exception, params: Any
        ) -> None:
            response.status = status
            _error(request, response, kind, str(exc), getattr(exc, "field", None) or None)

        app.add_error_handler(error, handler)

    def handle_ours(error: type[Exception], status: str, kind: str, message: str) -> None:
        """Log what is no fault of the request, and answer ``message``."""

        def handler(
            request: falcon.Request, response: falcon.Response, exc: Exception, params: Any
        ) -> None:
            LOG.exception("%r %r failed", request.method, request.path)
            response.status = status
            _error(request, response, kind, message)

        app.add_error_handler(error, handler)

    handle_ours(Exception, falcon.HTTP_500, "InternalError", "the server failed; see its log")
    app.add_error_handler(falcon.HTTPError, _http_error)
    for refusal in REFUSALS:
        if refusal.exception is not None:
            handle(refusal.exception, falcon.code_to_http_status(refusal.status), refusal.kind)
    handle(Missing, falcon.HTTP_404, "NotFound")
    away = "the database does not answer; try again"
    for unreachable in UNREACHABLE:
        handle_ours(unreachable, falcon.HTTP_503, "Unavailable", away)


def _http_error(
    request: falcon.Request, response: falcon.Response, exc: falcon.HTTPError, params: Any
) -> None:
    for name, value in dict(exc.headers or {}).items():
        response.set_header(name, value)
    _serialize(request, response, exc)
    response.status = exc.status


def _serialize(request: falcon.Request, response: falcon.Response, exc: falcon.HTTPError) -> None:
    title = (exc.title or "Error").removeprefix(str(exc.status)[:3]).strip()
    kind = "".join(word.capitalize() for word in title.split())
    message = exc.description or f"{request.method} {request.path}: {title}"
    _error(request, response, kind, message)


class _Json:
    """Refuses a body whose content type is not JSON.

    A page in a browser can send other types (a form, plain text) to any site
    without a preflight request; JSON it cannot.
    """

    def process_request(self, request: falcon.Request, response: falcon.Response) -> None:
        if request.method not in _WRITING or request.content_type is None:
            return
        kind, _, _ = request.content_type.partition(";")
        if kind.strip().lower() != falcon.MEDIA_JSON.partition(";")[0]:
            raise falcon.HTTPUnsupportedMediaType(
                title="UnsupportedMediaType",
                description=f"Content-Type must be application/json (got {request.content_type!r})",
            )


class _Timing:
    """Counts and times requests by method, route and status.

    Only methods that the API knows get a label of their own: a client can invent
    any number, and each would make a new series.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def process_request(self, request: falcon.Request, response: falcon.Response) -> None:
        request.context.started = time.monotonic()

    def process_response(
        self,
        request: falcon.Request,
        response: falcon.Response,
        resource: object,
        req_succeeded: bool,
    ) -> None:
        route = request.uri_template or "none"
        method = request.method if request.method in _METHODS else "other"
        labels = (method, route, str(response.status)[:3])
        self._metrics.requests.labels(*labels).observe(time.monotonic() - request.context.started)
