"""A RabbitMQ user for each compute host, with the permissions that the install page gives."""

import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import oslo_messaging
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from oslo_config import cfg
from oslo_messaging.rpc import dispatcher

from agent_flows.rpc import transport as wire
from agent_flows.rpc.agent import AgentEndpoint, ServerClient
from agent_flows.rpc.identity import Identity
from agent_flows.rpc.server import AgentClient, ServerEndpoint
from agent_flows.rpc.signing import HostKeys, Signer
from lab.model import new_id
from lab.process import wait_until
from lab.rabbit import Rabbit
from lab.server_parts import Server as Parts

PAGE = Path(__file__).parents[2] / "doc" / "operator" / "install.md"
HOST, OTHER = "compute-1", "compute-2"
SOON = 10.0


class Bus:
    """A RabbitMQ with the page's user, a server on it, and the agents of both hosts."""

    def __init__(self, rabbit: Rabbit, stack: ExitStack, database: Path) -> None:
        self._stack = stack
        self._address = f"{rabbit.address}:{rabbit.port}/agent_flows"
        # The transport's drivers know options that are registered there only.
        self._conf = cfg.CONF
        self.parts = Parts(f"sqlite:///{database}")
        stack.callback(self.parts.close)
        self.server = self._transport("guest:guest")
        self.limited = self._transport(f"{HOST}:SECRET")
        endpoint = ServerEndpoint(self.parts.store)
        self.listen(self.server, wire.server_target("server-1"), endpoint)

    def _transport(self, user: str) -> oslo_messaging.Transport:
        made = oslo_messaging.get_rpc_transport(self._conf, url=f"rabbit://{user}@{self._address}")
        self._stack.callback(made.cleanup)
        return made

    def listen(
        self, transport: oslo_messaging.Transport, target: oslo_messaging.Target, endpoint: object
    ) -> None:
        server = oslo_messaging.get_rpc_server(
            transport, target, [endpoint], access_policy=dispatcher.DefaultRPCAccessPolicy
        )
        server.start()
        self._stack.callback(server.stop)


@pytest.fixture(scope="module")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bus]:
    commands = [
        shlex.split(line)[1:]
        for line in PAGE.read_text().splitlines()
        if line.strip().startswith("rabbitmqctl ")
    ]
    with ExitStack() as stack:
        rabbit = stack.enter_context(Rabbit())
        for command in commands:
            rabbit.ctl(*command)
        rabbit.ctl("set_permissions", "-p", "agent_flows", "guest", ".*", ".*", ".*")
        yield Bus(rabbit, stack, tmp_path_factory.mktemp("bus") / "server.sqlite")


def test_a_hosts_user_can_do_all_that_its_agent_does(bus: Bus) -> None:
    agent = mock.Mock()
    bus.listen(bus.limited, wire.agent_target(HOST), AgentEndpoint(agent))
    client = ServerClient(bus.limited, HOST, SOON)
    client.heartbeat({})
    assert client.get_ports([new_id()]).ports == {}
    AgentClient(bus.server).resync(HOST)
    wait_until(lambda: agent.resync.called, SOON, "the cast to the host's agent")


@pytest.mark.parametrize(
    "attempt",
    [
        lambda bus: AgentClient(bus.limited).resync(OTHER),
        lambda bus: (
            oslo_messaging.get_rpc_client(bus.limited, wire.agent_target(), retry=1)
            .prepare(fanout=True)
            .cast({}, "resync")
        ),
        lambda bus: bus.listen(bus.limited, wire.agent_target(OTHER), AgentEndpoint(mock.Mock())),
        lambda bus: bus.listen(
            bus.limited, wire.server_target("spy"), ServerEndpoint(bus.parts.store)
        ),
    ],
    ids=["cast to another host", "cast to all", "listen as another host", "listen as a server"],
)
def test_a_hosts_user_reaches_no_other_host(bus: Bus, attempt: Callable[[Bus], None]) -> None:
    with pytest.raises(oslo_messaging.MessageDeliveryFailure, match="ACCESS_REFUSED"):
        attempt(bus)


def test_a_hosts_user_cannot_report_as_another_host_that_has_a_key(bus: Bus) -> None:
    """Its user may publish to the server, and the names of processes are no secret."""
    own, theirs = (HostKeys(Ed25519PrivateKey.generate()) for _ in range(2))
    process = Identity.following(())
    ServerClient(bus.server, OTHER, SOON, Signer(process, OTHER, own)).heartbeat({"ports": 1})
    successor = Identity.following((process.boot_id,))
    for signer in (None, Signer(successor, OTHER, theirs), Signer(process, OTHER, theirs)):
        impostor = ServerClient(bus.limited, OTHER, SOON, signer)
        for attempt in (lambda i=impostor: i.heartbeat({}), lambda i=impostor: i.report([])):
            with pytest.raises(oslo_messaging.RemoteError, match="speaks for it") as refusal:
                attempt()
            assert refusal.value.exc_type == "HostTaken"
    forged = ServerClient(bus.limited, OTHER, SOON, Signer(process, HOST, own))
    with pytest.raises(oslo_messaging.RemoteError, match="signature"):
        forged.heartbeat({})
