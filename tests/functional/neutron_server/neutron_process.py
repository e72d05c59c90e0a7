"""Neutron's server in one process: its API, its RPC callbacks and our plugin, driven line by line.

A process of its own, because Neutron registers its options and plugins for
good. It reads one JSON object a line, ``{"do": name, ...}``, and answers
``{"answer": ...}`` or ``{"raised": [type, message]}``.
"""

import datetime
import json
import sys
import threading
import time
import traceback
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from wsgiref import simple_server, util

import pydantic
import sqlalchemy as sa
import webob
from neutron.agent import resource_cache
from neutron.api import extensions
from neutron.api.rpc.callbacks import events as rpc_events
from neutron.api.rpc.callbacks import resources
from neutron.api.rpc.handlers import resources_rpc
from neutron.common import config
from neutron.conf.plugins.ml2.drivers import driver_type
from neutron.db import agents_db, provisioning_blocks
from neutron.notifiers import nova
from neutron.pecan_wsgi import app
from neutron.plugins.ml2 import rpc as ml2_rpc
from neutron.policy import reset as forget_policies
from neutron_lib import context
from neutron_lib.db import api as db_api
from neutron_lib.plugins import directory
from oslo_config import cfg
from oslo_utils import timeutils

from agent_flows.neutron.agent.cached_state import CachedState
from agent_flows.neutron.agent.catch_up import CacheUpdate
from agent_flows.neutron.server.api_definition import PLUGIN_TYPE
from agent_flows.neutron.server.desired import DesiredContent
from agent_flows.neutron.server.models import GatedPort
from agent_flows.rpc.revisions import Revisions
from agent_flows.rpc.server import ServerEndpoint
from agent_flows.server.core import clock
from agent_flows.server.core.casts import Casts
from agent_flows.server.core.models import Agent
from agent_flows.validation import parse
from lab.statements import statements

# Nova, which binds ports, is a service.
_ADMIN = ["admin", "member", "reader", "service"]

_URL = "http://neutron.example/v2.0"
# What keystoneauth sends without authentication.
_WITHOUT = "notused"


class Process:
    """The commands; each is a method."""

    def __init__(self, config_file: str) -> None:
        config.register_common_config_options()
        driver_type.register_ml2_drivers_vlan_opts()
        config.init(["--config-file", config_file])
        config.setup_logging()
        # As api-paste.ini has it: extensions first, then the rest.
        pecan = app.v2_factory(None)
        self._api = extensions.plugin_aware_extension_middleware_factory({})(pecan)
        core = directory.get_plugin()
        # The test bed has no Nova: what would be sent there is kept.
        nova.Notifier.get_instance().batch_notifier.queue_event = _NOVA.append
        self._agents = ml2_rpc.RpcCallbacks(core.notifier, core.type_manager)
        self._states = agents_db.AgentExtRpcCallback()
        self._reports = directory.get_plugin(PLUGIN_TYPE)._reports
        self._endpoint = ServerEndpoint(self._reports.store)

    def rest(
        self, method: str, path: str, body: Any, project: str | None, roles: list[str]
    ) -> tuple[int, Any]:
        request = webob.Request.blank(path, base_url=_URL, method=method)
        request.accept = request.content_type = "application/json"
        if body is not None:
            request.body = json.dumps(body).encode()
        request.environ["neutron.context"] = (
            context.Context(user_id="somebody", project_id=project, roles=roles)
            if project
            else context.Context(
                user_id="admin",
                project_id="admins",
                is_admin=True,
                roles=_ADMIN,
            )
        )
        answer = request.get_response(self._api)
        return answer.status_int, json.loads(answer.body) if answer.body else None

    def serve(self) -> int:
        """Serve the whole API on loopback; answers the port.

        Every caller is admin, but one with a token: it is a reader of the project of that name.
        """

        class Quiet(simple_server.WSGIRequestHandler):
            def log_message(self, *args: Any) -> None:
                return

        versions = app.versions_factory({})

        def whole(environ: dict[str, Any], start: Any) -> Any:
            project = environ.get("HTTP_X_AUTH_TOKEN")
            if project and project != _WITHOUT:
                environ["neutron.context"] = context.Context(
                    user_id="somebody", project_id=project, roles=["member", "reader"]
                )
            if environ["PATH_INFO"].startswith("/v2.0"):
                environ["SCRIPT_NAME"] = util.shift_path_info(environ) and "/v2.0"
                return self._api(environ, start)
            return versions(environ, start)

        server = simple_server.make_server("127.0.0.1", 0, whole, handler_class=Quiet)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server.server_port

    def state_report(self, host: str, extensions: list[str] | None) -> None:
        """What an OVS agent sends every half a minute; None: without a list of extensions."""
        state: dict[str, Any] = {
            "agent_type": "Open vSwitch agent",
            "binary": "neutron-openvswitch-agent",
            "host": host,
            "topic": "N/A",
            "start_flag": True,
            "configurations": {
                "tunnel_types": ["vxlan"],
                "tunneling_ip": "192.0.2.1",
                "bridge_mappings": {},
                "datapath_type": "netdev",
                "ovs_capabilities": {"datapath_types": ["netdev"], "iface_types": []},
                "ovs_hybrid_plug": False,
                "vhostuser_socket_dir": "/run",
            },
        }
        if extensions is not None:
            state["configurations"]["extensions"] = extensions
        now = timeutils.utcnow().isoformat()
        self._states.report_state(_admin(), agent_state={"agent_state": state}, time=now)

    def device(self, host: str, port: str, up: bool) -> None:
        """The OVS agent wired the port, as far as Neutron's own part goes, or lost it."""
        call = self._agents.update_device_up if up else self._agents.update_device_down
        call(_admin(), agent_id=f"ovs-agent-{host}", host=host, device=port)

    def report(self, host: str, reports: list[Any], agent: Any = None) -> Any:
        return self._endpoint.report(agent or {}, host, reports)

    def heartbeat(self, host: str, state: dict[str, Any], agent: Any = None) -> Any:
        """The extension's own; ``agent`` is its identity as the RPC context has it."""
        return self._endpoint.heartbeat(agent or {}, host, state)

    def start_agent(self, host: str) -> None:
        """The only agent, as far as its resource cache goes: it is empty."""
        _CACHES.clear()
        _CACHES[host] = PlayedCache(self._endpoint, host)

    def lose_pushes(self, host: str) -> None:
        """From now on what Neutron pushes to its agents does not reach the one of ``host``."""
        _CACHES[host].lost = True

    def catch_up(self, host: str) -> int:
        """The agent of ``host`` asks what differs; how many resources the server then sent."""
        return _CACHES[host].catch_up()

    def digest(self, host: str) -> str:
        """Of what the agent of ``host`` has."""
        return _CACHES[host].state.revisions().digest()

    def revisions(self, host: str) -> list[Any]:
        """What the server desires of ``host``, and what its agent has."""
        self.forget_content()
        desired = self._endpoint.get_revisions({}, host)
        return [desired, _CACHES[host].state.revisions().to_wire()]

    def forget_content(self) -> None:
        """As if what is kept for some seconds was read long ago. From now on no time passes."""
        self._reports.directory._content = DesiredContent(lambda: 0.0)

    def queries(self, host: str) -> int:
        """How many the digest in an answer to ``host`` takes now."""
        directory, number = self._reports.directory, 0

        def count(*_: object) -> None:
            nonlocal number
            number += 1

        with self._reports.database.reader() as session:
            engine = session.get_bind()
            sa.event.listen(engine, "before_cursor_execute", count)
            directory.desired(session, host)
            sa.event.remove(engine, "before_cursor_execute", count)
        return number

    def statements(self, path: str) -> list[str]:
        """Those that an answer to an administrator takes."""
        engine = db_api.get_context_manager().writer.get_engine()
        with statements(engine) as sent:
            status, answer = self.rest("GET", path, None, project=None, roles=[])
        assert status == 200, answer
        return sent

    def poison(self, host: str, port: str, sequence: int) -> None:
        """What an earlier release let in: a sequence that no clock has reached."""
        with self._reports.database.writer() as session:
            session.get(Agent, host).sequence = sequence
            session.get(GatedPort, port).sequence = sequence

    def scrape(self) -> str:
        """What Prometheus reads of an RPC worker; this process takes reports as one does."""
        reports = self._reports
        if not hasattr(self, "_metrics"):
            self._metrics = reports._serve_metrics(range(20000, 30000))
        while self._metrics.port is None:
            time.sleep(0.01)
        url = f"http://127.0.0.1:{self._metrics.port}/metrics"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.read().decode()

    def settle(self) -> None:
        """Wait until what was decided is done."""
        assert self._reports.verdicts.wait_until_quiet(60)

    def sweep(self) -> None:
        self._reports.sweeper.sweep()

    def later(self, seconds: float) -> None:
        """From now on our clock is so much ahead."""

        def now() -> datetime.datetime:
            return datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)

        clock.now = now

    def casts(self) -> list[Any]:
        """What was sent to agents since the last call."""
        self._reports.caster.send(Casts()).result(60)  # all that were sent before it
        sent, _CASTS[:] = list(_CASTS), []
        return sent

    def nova(self) -> list[Any]:
        """The events that Nova got since the last call: name and port."""
        events, _NOVA[:] = [event for event in _NOVA if event], []
        return [[event["name"], event["tag"]] for event in events]

    def die_before_settling(self, host: str, reports: list[Any]) -> Any:
        """A report is committed, and what follows from it is not completed."""
        ports = self._reports.directory
        settle, ports._apply_soon = ports._apply_soon, lambda ids: None
        try:
            return self.report(host, reports)
        finally:
            ports._apply_soon = settle

    def lift_at_the_same_time(self, port: str) -> None:
        """Neutron's own block goes in the very moment ours does: each sees the other's still."""
        provisioning_blocks.remove_provisioning_component(
            _admin(), port, "port", provisioning_blocks.L2_AGENT_ENTITY
        )

    def choose(self, group: str, name: str, value: Any) -> None:
        """An operator's choice, as if it had been in the file at start."""
        cfg.CONF.set_override(name, value, group)
        vars(self._reports).pop("store", None)
        self._endpoint = ServerEndpoint(self._reports.store)
        forget_policies()

    def together(self, works: list[dict[str, Any]]) -> list[Any]:
        """Run commands at one time, as Neutron's workers do; answers, or raises the first error."""
        start = threading.Barrier(len(works))

        def run(work: dict[str, Any]) -> Any:
            start.wait(10)
            return self.run(work)

        with ThreadPoolExecutor(len(works)) as pool:
            return [done.result(60) for done in [pool.submit(run, work) for work in works]]

    def run(self, work: dict[str, Any]) -> Any:
        return getattr(self, work.pop("do"))(**work)


class PlayedCache:
    """The resource cache of an OVS agent. What the server sends it goes through the form it has on
    the wire."""

    def __init__(self, endpoint: ServerEndpoint, host: str) -> None:
        self.lost = False
        self._pulled = 0
        types = [resources.PORT, resources.SECURITYGROUP,
                 resources.SECURITYGROUPRULE, resources.ADDRESSGROUP]  # fmt: skip
        self._cache = resource_cache.RemoteResourceCache(types)
        self._cache._puller = self
        self.state = CachedState(self._cache, host)
        self._endpoint, self._host = endpoint, host
        self._update = CacheUpdate(self._cache, self, self.state, self)

    def catch_up(self) -> int:
        before = self._pulled
        self._update.run(None)
        return self._pulled - before

    def get_revisions(self) -> Revisions:
        return parse(_REVISIONS, self._endpoint.get_revisions({}, self._host))

    def get_members(self, security_group: str) -> Any:
        return self._endpoint.get_members({}, self._host, security_group)

    def bulk_pull(self, context: Any, resource_type: str, filter_kwargs: Any) -> list[Any]:
        of_type = resources.get_resource_cls(resource_type)
        found = resources_rpc.ResourcesPullRpcCallback().bulk_pull(
            context, resource_type, of_type.VERSION, _sent(filter_kwargs)
        )
        self._pulled += len(found)
        return [of_type.clean_obj_from_primitive(each) for each in _sent(found)]

    def pushed(self, context: Any, objects: list[Any], event: str) -> None:
        for each in objects:
            kind = resources.get_resource_type(type(each))
            if self.lost or kind not in self._cache.resource_types:
                continue
            if event == rpc_events.DELETED:
                self._cache.record_resource_delete(context, kind, each.id)
            else:
                raw = _sent(each.obj_to_primitive())
                resource = type(each).clean_obj_from_primitive(raw)
                self._cache.record_resource_update(context, kind, resource)


_CACHES: dict[str, PlayedCache] = {}


def _sent(value: Any) -> Any:
    """As the bus delivers it."""
    return json.loads(json.dumps(value))


def _push(self: object, context: Any, objects: list[Any], event: str) -> None:
    for cache in _CACHES.values():
        cache.pushed(context, objects, event)


_REVISIONS: pydantic.TypeAdapter[Revisions] = pydantic.TypeAdapter(Revisions)
_CASTS: list[Any] = []
_NOVA: list[Any] = []


def _admin() -> Any:
    return context.get_admin_context()


def main(config_file: str) -> None:
    answers, sys.stdout = sys.stdout, sys.stderr
    process = Process(config_file)
    resources_rpc.ResourcesPushRpcApi.push = _push

    class Bus:
        """Where casts to agents would go."""

        def __getattr__(self, kind: str) -> Any:
            return lambda host, ids=None: _CASTS.append([kind, host, ids])

    from agent_flows.server.core.casts import Caster

    vars(process._reports)["caster"] = Caster(Bus(), process._reports._metrics)
    for part in ("directory", "store", "sweeper"):
        vars(process._reports).pop(part, None)
    process._endpoint = ServerEndpoint(process._reports.store)
    print(json.dumps({"answer": "ready"}), file=answers, flush=True)
    for line in sys.stdin:
        wanted = json.loads(line)
        try:
            answer = {"answer": process.run(wanted)}
        except Exception as exc:  # noqa: BLE001 - any error goes to the test
            traceback.print_exc()
            answer = {"raised": [type(exc).__name__, str(exc)]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
