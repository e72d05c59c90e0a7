"""The server's parts on a database, without its processes, and an agent that uses them."""

import json
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import falcon.testing
from oslo_config import cfg

from agent_flows import conf as options
from agent_flows.report import FlowName, FlowReport, ResourceType
from agent_flows.rpc.answers import Held, Receipt
from agent_flows.rpc.desired import Update, change_from_wire
from agent_flows.rpc.identity import Identity
from agent_flows.server.core import database
from agent_flows.server.core.casts import Caster, Casts
from agent_flows.server.core.directory import PortDirectory
from agent_flows.server.core.gate import Settings
from agent_flows.server.core.liveness import Rules
from agent_flows.server.core.metrics import Metrics
from agent_flows.server.core.store import Store
from agent_flows.server.core.sweeper import Limits, Sweeper
from agent_flows.server.standalone import schema
from agent_flows.server.standalone.api.app import application
from agent_flows.server.standalone.directory import OwnDirectory
from agent_flows.spec import DesiredState
from agent_flows.supervision import Troubles
from lab.model import flow_report, group_revisions


class CastRecorder:
    """Records what the server casts to agents; raises ``failure`` instead if there is one."""

    def __init__(self) -> None:
        self.casts: list[tuple[str, str, frozenset[str]]] = []
        self.changes: list[tuple[str, Update]] = []
        self.failure: Exception | None = None

    def _note(self, host: str, what: str, ids: Collection[str] | None) -> None:
        if self.failure is not None:
            raise self.failure
        self.casts.append((host, what, frozenset(ids or ())))

    def ports_changed(self, host: str, port_ids: Collection[str]) -> None:
        self._note(host, "ports_changed", port_ids)

    def security_groups_changed(
        self, host: str, ids: Collection[str], change: Mapping[str, Any] | None = None
    ) -> None:
        if self.failure is None and change is not None:
            self.changes.append((host, change_from_wire(change)))
        self._note(host, "security_groups_changed", ids)

    def resync(self, host: str, port_ids: Collection[str] | None = None) -> None:
        self._note(host, "resync", port_ids)


class Server:
    """Store, directory, sweeper and REST on the database at ``url``."""

    def __init__(
        self,
        url: str,
        *,
        settings: Settings | None = None,
        directory: PortDirectory | None = None,
        limits: Mapping[str, Any] | None = None,
        api: Mapping[str, Any] | None = None,
        rules: Rules | None = None,
    ) -> None:
        self.rules = rules or Rules()
        self.conf = configuration(url)
        for name, value in (api or {}).items():
            self.conf.set_override(name, value, options.API)
        self.database = database.Database(self.conf)
        schema.upgrade(self.database)
        self.recorder = CastRecorder()
        self.metrics = Metrics()
        self.caster = Caster(self.recorder, self.metrics)
        self.directory = directory or OwnDirectory()
        self.store = Store(
            self.database,
            self.directory,
            self.caster,
            self.metrics,
            settings or Settings(),
            rules=self.rules,
        )
        bounds = {
            "interval": 60.0,
            "report_timeout": 60.0,
            "history_attempts": 10,
            "history_failures": 100,
            "history_after_delete": 3600.0,
            **(limits or {}),
        }
        self.troubles = Troubles()
        self.sweeper = Sweeper(
            self.database,
            self.directory,
            self.caster,
            self.metrics,
            Limits(**bounds),
            rules=self.rules,
            troubles=self.troubles,
        )
        app = application(self.conf, self.database, self.caster, self.metrics, {})
        self.rest = falcon.testing.TestClient(app)

    def close(self) -> None:
        self.caster.stop()
        self.database.close()

    def new_casts(self) -> list[tuple[str, str, frozenset[str]]]:
        """The casts since this was last asked."""
        self.caster.send(Casts()).exception()
        casts, self.recorder.casts = self.recorder.casts, []
        return casts

    def put(self, collection: str, resource_id: str, **fields: Any) -> dict[str, Any]:
        """PUT it; AssertionError with the answer unless it was accepted."""
        answer = self.try_put(collection, resource_id, **fields)
        return dict(_content(answer)[_singular(collection)])

    def try_put(self, collection: str, resource_id: str, **fields: Any) -> falcon.testing.Result:
        body = json.dumps({_singular(collection): fields})
        return self.rest.simulate_put(f"/{collection}/{resource_id}", body=body)

    def show(self, collection: str, resource_id: str) -> dict[str, Any]:
        answer = self.rest.simulate_get(f"/{collection}/{resource_id}")
        return dict(_content(answer)[_singular(collection)])

    def find(self, collection: str, **filters: Any) -> list[dict[str, Any]]:
        answer = self.rest.simulate_get(f"/{collection}", params=filters)
        return list(_content(answer)[collection.replace("-", "_")])

    def state(self, port_id: str) -> tuple[str, str]:
        port = self.show("ports", port_id)
        return port["status"], port["sync_state"]

    def delete(self, collection: str, resource_id: str) -> falcon.testing.Result:
        return self.rest.simulate_delete(f"/{collection}/{resource_id}")


def _content(answer: falcon.testing.Result) -> Any:
    if answer.status_code not in (200, 201):
        raise AssertionError(f"{answer.status}: {answer.text}")
    return answer.json


def _singular(collection: str) -> str:
    return collection.removesuffix("s").replace("-", "_")


def configuration(url: str) -> cfg.ConfigOpts:
    conf = cfg.ConfigOpts()
    options.register(conf)
    database.register(conf)
    conf([], default_config_files=[])
    conf.set_override("connection", url, "database")
    return conf


@contextmanager
def running(url: str, **kwargs: Any) -> Iterator[Server]:
    server = Server(url, **kwargs)
    try:
        yield server
    finally:
        server.close()


class FakeAgent:
    """Speaks for ``host``: asks for specs, and reports what a test wants done.

    ``alive``: it sends a heartbeat at once.
    """

    def __init__(
        self, server: Server, host: str, identity: Identity | None = None, *, alive: bool = True
    ) -> None:
        self.server = server
        self.host = host
        self.identity = identity
        self.sequence = 0
        if alive:
            self.beat()

    def beat(self, **state: Any) -> Held:
        """Send a heartbeat; the server's answer."""
        return self.server.store.take_heartbeat(self.host, state, self.identity)

    def specs(self, *port_ids: str) -> DesiredState:
        found = self.server.store.get_ports(self.host, port_ids or None, self.identity)
        return DesiredState.of(found)

    def report(
        self, port_id: str, flow: FlowName = FlowName.WIRE, fails: str | None = None, **fields: Any
    ) -> FlowReport:
        """An attempt at the desired state of now; ``fails`` names the task that failed."""
        desired = self.specs(port_id)
        spec = desired.ports.get(port_id)
        self.sequence += 1
        values = {
            "host": self.host,
            "resource_id": port_id,
            "flow": flow,
            "revision": spec.revision if spec else 1,
            "security_group_revisions": group_revisions(desired, spec) if spec else {},
            "sequence": self.sequence,
            **fields,
        }
        return flow_report(fails=fails, **values)

    def report_of_group(self, group: str, fails: str | None = None, **fields: Any) -> FlowReport:
        """What the host reports of the group as it is now."""
        self.sequence += 1
        values = {
            "host": self.host,
            "resource_type": ResourceType.SECURITY_GROUP,
            "resource_id": group,
            "flow": FlowName.REFRESH,
            "revision": self.server.show("security-groups", group)["revision_number"],
            "sequence": self.sequence,
            **fields,
        }
        return flow_report(fails, **values)

    def send(self, *reports: FlowReport) -> Receipt:
        return self.server.store.take_reports(self.host, reports, self.identity)

    def wire(self, *port_ids: str) -> None:
        """Report these ports as wired; AssertionError unless that is accepted."""
        answer = self.send(*[self.report(port_id) for port_id in port_ids])
        if answer.rejected:
            raise AssertionError(answer.rejected)


def together(*works: Callable[[], object]) -> None:
    """Run all at one time; raises what the first that failed raised."""
    start = threading.Barrier(len(works))

    def run(work: Callable[[], object]) -> None:
        start.wait()
        work()

    with ThreadPoolExecutor(len(works)) as pool:
        for done in [pool.submit(run, work) for work in works]:
            done.result()
