"""Takes reports in each of Neutron's RPC workers: the store on Neutron's database."""

import contextlib
import dataclasses
import socket
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import oslo_messaging
import sqlalchemy as sa
from neutron_lib import rpc as n_rpc
from oslo_config import cfg
from oslo_log import log

from agent_flows import conf as options
from agent_flows import process_report, tracing
from agent_flows.exporter import Exporter
from agent_flows.neutron.server import block_policy, live_migration
from agent_flows.neutron.server.apply_verdict import apply_verdicts, lift_block, unsettled_ports
from agent_flows.neutron.server.database import NeutronDatabase
from agent_flows.neutron.server.directory import NeutronDirectory
from agent_flows.neutron.server.models import GatedPort
from agent_flows.neutron.server.verdict_worker import VerdictWorker
from agent_flows.report import FlowReport, TaskOutcome, Trouble
from agent_flows.rpc import transport as wire
from agent_flows.rpc.answers import Receipt
from agent_flows.rpc.dispatch import listener
from agent_flows.rpc.identity import Identity
from agent_flows.rpc.refusals import Refusals
from agent_flows.rpc.server import AgentClient, ServerEndpoint
from agent_flows.server.core import agent_view, agents, clock, settings
from agent_flows.server.core.casts import Caster
from agent_flows.server.core.database import retried
from agent_flows.server.core.errors import NotFound
from agent_flows.server.core.liveness import Liveness, Rules
from agent_flows.server.core.metrics import Metrics, Snapshot
from agent_flows.server.core.store import Store
from agent_flows.server.core.sweeper import TROUBLE, Sweeper
from agent_flows.supervision import Troubles
from agent_flows.tracing import Traces

LOG = log.getLogger(__name__)

_LAST_OF_UTF8MB3 = 0xFFFF
# Ports for metrics, one for each RPC worker.
_MOST_WORKERS = 64


class NeutronStore(Store):
    """For connections in MariaDB's three-byte ``utf8``, whatever the tables can hold."""

    def take_reports(
        self, host: str, reports: Sequence[FlowReport], agent: Identity | None = None
    ) -> Receipt:
        plain = [
            dataclasses.replace(report, tasks=tuple(map(_plain, report.tasks)))
            for report in reports
        ]
        return super().take_reports(host, plain, agent)


def _plain(task: TaskOutcome) -> TaskOutcome:
    error = task.error
    if error is None or (_fits(error.message) and _fits(error.detail)):
        return task
    plain = dataclasses.replace(error, message=_bmp(error.message), detail=_bmp(error.detail))
    return dataclasses.replace(task, error=plain)


def _fits(text: str) -> bool:
    return not text or ord(max(text)) <= _LAST_OF_UTF8MB3


def _bmp(text: str) -> str:
    return "".join(
        char if ord(char) <= _LAST_OF_UTF8MB3 else "\N{REPLACEMENT CHARACTER}" for char in text
    )


class ReportServer:
    """The parts that take reports; what has threads or connections makes them at its first use.

    Neutron makes its plugins in one process and uses them in that process's children.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf
        self._metrics = Metrics()
        self.troubles = Troubles()
        self.database = NeutronDatabase()
        self.verdicts = VerdictWorker(lambda port_ids: apply_verdicts(self.database, port_ids))

    @cached_property
    def directory(self) -> NeutronDirectory:
        return NeutronDirectory(
            self.verdicts.soon,
            lambda: unsettled_ports(self.database),
            live_migration.notify_nova,
            self.caster.send,
            self.database,
        )

    @cached_property
    def caster(self) -> Caster:
        return Caster(AgentClient(n_rpc.TRANSPORT), self._metrics)

    @cached_property
    def traces(self) -> Traces:
        return tracing.of(self._conf, "neutron-server")

    @cached_property
    def store(self) -> NeutronStore:
        gate = settings.of_the_gate(self._conf)
        return NeutronStore(
            self.database,
            self.directory,
            self.caster,
            self._metrics,
            gate,
            rules=self.rules,
            traces=self.traces,
        )

    @cached_property
    def sweeper(self) -> Sweeper:
        return Sweeper(
            self.database,
            self.directory,
            self.caster,
            self._metrics,
            settings.limits(self._conf),
            rules=self.rules,
            troubles=self.troubles,
        )

    @property
    def rules(self) -> Rules:
        # An agent is dead when Neutron takes it for dead.
        return dataclasses.replace(
            settings.of_the_agents(self._conf), down_time=float(self._conf.agent_down_time)
        )

    def listen(self) -> list[oslo_messaging.MessageHandlingServer]:
        """Take reports, and sweep for ports that no agent reports, until the process ends."""
        refusals = Refusals(lambda field: self._metrics.refused.labels(field).inc())
        endpoint = ServerEndpoint(self.store, refusals, traces=self.traces)
        target = wire.server_target(socket.gethostname())
        server = listener(n_rpc.TRANSPORT, target, endpoint, self._metrics.called)
        server.start()
        self.sweeper.start()
        # Neutron's worker writes the report itself.
        process_report.add_to_others("agent_flows: what fails", self._failing)
        if port := self._conf[options.SERVER].metrics_port:
            self._serve_metrics(range(port, min(port + _MOST_WORKERS, 65536)))
        return [server]

    def _serve_metrics(self, ports: range) -> Exporter:
        """For this worker: each has a port and counters of its own."""
        self._metrics.watch_database(self._snapshot)
        self._metrics.watch_process(self._failing)
        exporter = Exporter(lambda: self._metrics.registry, ports, self.troubles, Trouble.METRICS)
        exporter.start()
        return exporter

    def _snapshot(self) -> Snapshot:
        with self.database.reader() as session:
            return agent_view.snapshot(session, self.directory, Liveness(self.rules, clock.now()))

    def _failing(self) -> dict[str, bool]:
        troubles = self.troubles.current()
        return {
            "sweeper": not self.sweeper.is_alive() or TROUBLE in troubles,
            "casts": self.caster.failure is not None,
        }

    def agent_reported(self, host: str, configurations: Mapping[str, Any]) -> None:
        """The OVS agent of ``host`` reported its state to Neutron: a heartbeat.

        Without our extension it would never report on its ports: they are released.
        """
        if block_policy.has_extension(configurations):
            self.store.vouch(host)
            return
        mine = GatedPort.host == host
        with self.database.reader() as session:
            ports = list(session.scalars(sa.select(GatedPort.port_id).where(mine)))
        if ports:
            LOG.warning(
                "The agent of %s has no extension %s: releasing its %d ports",
                host,
                block_policy.EXTENSION,
                len(ports),
            )
            for port_id in ports:
                lift_block(port_id)
            self._release(ports)

    @retried
    def agent_deleted(self, host: str) -> None:
        """An administrator deleted the OVS agent of ``host``: our row goes too."""
        with contextlib.suppress(NotFound), self.database.writer() as session:
            agents.forget(session, host)

    @retried
    def _release(self, port_ids: Sequence[str]) -> None:
        with self.database.writer() as session:
            session.execute(
                sa.delete(GatedPort)
                .where(GatedPort.port_id.in_(port_ids))
                .execution_options(synchronize_session=False)
            )
