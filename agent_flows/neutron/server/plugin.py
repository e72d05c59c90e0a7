"""The service plugin ``agent_flows``: takes reports in the RPC workers, answers in the API."""

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import TimeoutError as NotInTime
from typing import Any

import oslo_messaging
import sqlalchemy as sa
from neutron import policy
from neutron.api import extensions
from neutron.db import models_v2
from neutron_lib import constants, exceptions
from neutron_lib.api.definitions import port as port_definition
from neutron_lib.callbacks import events, registry, resources
from neutron_lib.db import api as db_api
from neutron_lib.db import model_query, resource_extend
from neutron_lib.db import utils as db_utils
from neutron_lib.services import base
from oslo_config import cfg
from sqlalchemy import orm

from agent_flows import conf as options
from agent_flows.neutron.server import (
    agent_listing,
    api_definition,
    error_policy,
    gated_ports,
    live_migration,
    native_page,
    policies,
    port_sync,
    sync_rollup,
    task_listing,
)
from agent_flows.neutron.server import extensions as our_extensions
from agent_flows.neutron.server.database import NeutronDatabase
from agent_flows.neutron.server.errors import (
    AgentNotTold,
    HostNotFound,
    NotLookedAfter,
    ProblemNotFound,
    TaskNotFound,
)
from agent_flows.neutron.server.models import GatedPort
from agent_flows.neutron.server.native_page import Page
from agent_flows.neutron.server.port_sync import PortSync
from agent_flows.neutron.server.report_server import ReportServer
from agent_flows.server.core import clock, problems
from agent_flows.server.core.casts import Casts, to_hosts
from agent_flows.server.core.listing import one
from agent_flows.validation import Invalid

_CAST_SECONDS = 5.0
_SYNC_STATE = api_definition.SYNC_STATE

View = dict[str, Any]

_PORT_SYNC = PortSync(NeutronDatabase())


@registry.has_registry_receivers
@resource_extend.has_resource_extenders
class AgentFlowsPlugin(base.ServicePluginBase):  # type: ignore[misc]
    """Loaded by ``service_plugins = ...,agent_flows``, in every process of Neutron's server."""

    supported_extension_aliases = (api_definition.ALIAS,)
    # Neutron looks these up under the name of the class.
    __native_pagination_support = True
    __native_sorting_support = True

    def __init__(self) -> None:
        super().__init__()
        options.register(cfg.CONF)
        extensions.append_api_extensions_path(our_extensions.__path__)
        self._reports = ReportServer(cfg.CONF)
        live_migration.hold_back_unproven()
        db_api.sqla_listen(orm.Session, "after_flush", gated_ports.rules_flushed)
        model_query.register_hook(
            models_v2.Port, "agent_flows", None, None, result_filters=_by_sync_state
        )

    def get_plugin_type(self) -> str:
        return api_definition.PLUGIN_TYPE

    def get_plugin_description(self) -> str:
        return api_definition.DESCRIPTION

    def start_rpc_listeners(self) -> list[oslo_messaging.MessageHandlingServer]:
        """Called in each RPC worker."""
        return self._reports.listen()

    @registry.receives(resources.AGENT, [events.AFTER_CREATE, events.AFTER_UPDATE])  # type: ignore[untyped-decorator]
    def _agent_reported(
        self, resource: str, event: str, trigger: object, payload: Any = None
    ) -> None:
        state = payload.desired_state
        if state["agent_type"] == constants.AGENT_TYPE_OVS:
            self._reports.agent_reported(state["host"], state.get("configurations") or {})

    @registry.receives(resources.AGENT, [events.AFTER_DELETE])  # type: ignore[untyped-decorator]
    def _agent_deleted(
        self, resource: str, event: str, trigger: object, payload: Any = None
    ) -> None:
        agent = payload.states[0]
        if agent.agent_type == constants.AGENT_TYPE_OVS:
            self._reports.agent_deleted(agent.host)

    # Neutron calls what extends a resource without the plugin.

    @staticmethod
    @resource_extend.extends([api_definition.PORTS])  # type: ignore[untyped-decorator]
    def _extend_port(view: View, port: Any) -> None:
        # Some callers pass Neutron's object, some its row.
        _PORT_SYNC.extend(view, getattr(port, "db_obj", port))

    @staticmethod
    @resource_extend.extends([port_definition.COLLECTION_NAME_BULK])  # type: ignore[untyped-decorator]
    def _extend_ports(views: Sequence[View], nothing: None) -> None:
        _PORT_SYNC.extend_list(views)

    def get_tasks(
        self,
        context: Any,
        *,
        filters: Mapping[str, Sequence[str]] | None = None,
        fields: Sequence[str] | None = None,
        sorts: Sequence[tuple[str, bool]] | None = None,
        limit: int | None = None,
        marker: str | None = None,
        page_reverse: bool = False,
    ) -> list[View]:
        wanted = Page(filters or {}, sorts or (), limit, marker, page_reverse)
        if "host" in wanted.filters or any(key == "host" for key, _ in wanted.sorts):
            policy.enforce(context, policies.GET_HOST, {"project_id": context.project_id})
        with self._reports.database.reader() as session:
            try:
                found = task_listing.tasks(session, _project(context), wanted)
            except Invalid as exc:
                raise exceptions.BadRequest(resource="tasks", msg=str(exc)) from None
        return [_shown(context, task, fields) for task in found]

    def get_task(self, context: Any, task_id: str, fields: Sequence[str] | None = None) -> View:
        with self._reports.database.reader() as session:
            found = task_listing.task(session, _project(context), task_id)
        if found is None:
            raise TaskNotFound(task_id=task_id)
        return _shown(context, found, fields)

    def get_problems(
        self,
        context: Any,
        *,
        filters: Mapping[str, Sequence[str]] | None = None,
        fields: Sequence[str] | None = None,
        sorts: Sequence[tuple[str, bool]] | None = None,
        limit: int | None = None,
        marker: str | None = None,
        page_reverse: bool = False,
    ) -> list[View]:
        wanted = Page(filters or {}, sorts or (), limit, marker, page_reverse)
        named = wanted.filters.get(problems.RESOURCE)
        whose = () if named is None else (GatedPort.port_id.in_(list(named)),)
        listing = problems.listing(port_sync.affected(*whose))
        with self._reports.database.reader() as session:
            try:
                found = native_page.read(session, listing, wanted)
            except Invalid as exc:
                raise exceptions.BadRequest(resource="problems", msg=str(exc)) from None
        return [db_utils.resource_fields(problem, fields) for problem in found]

    def get_problem(
        self, context: Any, problem_id: str, fields: Sequence[str] | None = None
    ) -> View:
        with self._reports.database.reader() as session:
            found = one(session, problems.listing(port_sync.affected()), problem_id)
        if found is None:
            raise ProblemNotFound(problem_id=problem_id)
        shown: View = db_utils.resource_fields(found, fields)
        return shown

    def sync(self, context: Any, resource: str, resource_id: str) -> View:
        """How far the ports of a security group or network are in sync."""
        with self._reports.database.reader() as session:
            return sync_rollup.sync(session, context, resource, resource_id)

    def get_agent_flows_agents(
        self,
        context: Any,
        *,
        filters: Mapping[str, Sequence[str]] | None = None,
        fields: Sequence[str] | None = None,
        limit: int | None = None,
        marker: str | None = None,
        **_paging: Any,
    ) -> list[View]:
        """Always in the order of hosts, in pages that go forward."""
        with self._reports.database.reader() as session:
            try:
                found = agent_listing.hosts(
                    session,
                    self._reports.rules,
                    clock.now(),
                    filters or {},
                    limit=limit,
                    marker=marker,
                )
            except Invalid as exc:
                raise exceptions.BadRequest(resource=api_definition.AGENTS, msg=str(exc)) from None
        return [db_utils.resource_fields(agent, fields) for agent in found]

    def get_agent_flows_agent(
        self, context: Any, host: str, fields: Sequence[str] | None = None
    ) -> View:
        found = self.get_agent_flows_agents(context, filters={"host": [host]}, fields=fields)
        if not found:
            raise HostNotFound(host=host)
        return found[0]

    def ask(self, host: str, port_ids: Collection[str]) -> None:
        """Ask the agent of ``host`` to wire ports again; the request may be lost."""
        self._reports.caster.send(Casts(resyncs=to_hosts([host], port_ids)))

    def resync(self, port: View) -> View:
        """Ask the port's agent to wire it again; answers when the request was sent."""
        port_id = port["id"]
        with self._reports.database.reader() as session:
            row = session.get(GatedPort, port_id)
        if row is None:
            raise NotLookedAfter(port_id=port_id)
        sent = self._reports.caster.send(Casts(resyncs=to_hosts([row.host], [port_id])))
        try:
            sent.result(_CAST_SECONDS)
        except NotInTime:
            raise AgentNotTold(host=row.host, reason="the message bus does not answer") from None
        except oslo_messaging.MessagingException as exc:
            raise AgentNotTold(host=row.host, reason=str(exc)) from exc
        return {"port": {"id": port_id, "status": port["status"], _SYNC_STATE: row.sync_state}}


def _project(context: Any) -> str | None:
    """The project whose tasks this context may see, None for all projects."""
    return None if context.is_admin else str(context.project_id or "")


def _shown(context: Any, task: View, fields: Sequence[str] | None) -> View:
    """The task, its error cut to what this context may see; whole fields Neutron hides."""
    error = task["error"]
    if error is not None:
        shown_error = {"type": error["type"]}
        shown_error["message"] = error_policy.message(
            context, error["type"], error["message"], task["host"], task
        )
        if policy.check(context, policies.GET_DETAIL, task):
            shown_error["detail"] = error["detail"]
        task["error"] = shown_error
    shown: View = db_utils.resource_fields(task, fields)
    return shown


def _by_sync_state(query: Any, filters: Mapping[str, Sequence[str]] | None) -> Any:
    wanted = (filters or {}).get(_SYNC_STATE)
    if not wanted:
        return query
    there = sa.select(GatedPort.port_id).where(GatedPort.sync_state.in_(list(wanted)))
    return query.filter(models_v2.Port.id.in_(there))
