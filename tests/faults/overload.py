"""Agents of other hosts that make more reports than the server can take."""

import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from oslo_config import cfg

from agent_flows.rpc import transport
from lab.bus_agent import BusAgent
from lab.lifetime import Lifetime
from lab.model import flow_report
from lab.namespace import Namespace, mark

_READY_SECONDS = 60
_TICK = 0.05
MAX_REPORTS = 500
"""Of the outbox of each of these agents: more than that are dropped if they are superseded."""


@dataclass(frozen=True)
class Load:
    """What these agents have done so far; ``beat`` is the slowest heartbeat in seconds, or None if
    one was not answered."""

    made: int
    acknowledged: int
    waiting: int
    beats: int
    beat: float | None


class Agents(Lifetime):
    """A process with the agents of ``hosts``, each with its ports. They have no switch."""

    def __init__(self, namespace: Namespace, bus: str, hosts: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self._arguments = (namespace, bus, hosts)

    def _start(self) -> None:
        directory = Path(tempfile.mkdtemp(prefix=f"{mark()}overload-"))
        self._stack.callback(shutil.rmtree, directory, ignore_errors=True)
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        process = context.Process(
            target=_work, args=(theirs, directory, *self._arguments), daemon=True
        )
        process.start()
        self._stack.callback(process.join)
        self._stack.callback(process.terminate)

    def make(self, rate: float) -> None:
        """From now on they make so many reports a second, all together."""
        self._pipe.send(rate)

    def load(self) -> Load:
        self._pipe.send(None)
        if not self._pipe.poll(_READY_SECONDS):
            raise TimeoutError("the agents of the overload do not answer")
        found = self._pipe.recv()
        assert isinstance(found, Load)
        return found


def _work(
    pipe: Connection,
    directory: Path,
    namespace: Namespace,
    url: str,
    hosts: Mapping[str, Sequence[str]],
) -> None:
    # Threads that start here are inside as well.
    with namespace.entered():
        bus = transport.get_transport(cfg.CONF, url)
        agents = [
            BusAgent(bus, host, ports, directory, interval=1.0, max_reports=MAX_REPORTS)
            for host, ports in hosts.items()
        ]
        for agent in agents:
            agent.start()
        rate, made, due, last = 0.0, 0, 0.0, time.monotonic()
        while True:
            if pipe.poll(_TICK):
                asked = pipe.recv()
                if asked is None:
                    pipe.send(_load(agents, made))
                else:
                    rate = asked
            now = time.monotonic()
            # More at once would only be dropped, and take its time from what is due next.
            due = min(due + rate * (now - last), MAX_REPORTS * len(agents))
            last = now
            share = int(due) // len(agents)
            for agent in agents:
                ports = hosts[agent.host]
                agent.outbox.put(
                    [
                        flow_report(host=agent.host, resource_id=ports[(made + n) % len(ports)])
                        for n in range(share)
                    ]
                )
                made += share
            due -= share * len(agents)


def _load(agents: Sequence[BusAgent], made: int) -> Load:
    beats = [seconds for agent in agents for _, seconds in agent.client.beats]
    answered = [seconds for seconds in beats if seconds is not None]
    return Load(
        made=made,
        acknowledged=sum(len(agent.client.acknowledged) for agent in agents),
        waiting=sum(len(agent.outbox) for agent in agents),
        beats=len(beats),
        beat=max(answered, default=0.0) if len(answered) == len(beats) else None,
    )
