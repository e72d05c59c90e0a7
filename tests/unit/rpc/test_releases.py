"""Peers of version 1.0 and of this one, in both directions."""

import queue
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import oslo_messaging
import pytest
from oslo_config import cfg

from agent_flows.rpc import codec, transport
from agent_flows.rpc.agent import ServerClient
from agent_flows.rpc.answers import Held
from agent_flows.rpc.desired import Known
from agent_flows.rpc.dispatch import Endpoint, listener
from agent_flows.rpc.refusals import Refusals
from agent_flows.rpc.revisions import NOT_COMPARED
from agent_flows.rpc.server import AgentClient, ServerEndpoint
from lab import model
from tests.unit.rpc.consumer import GROUP, LONGEST, PORT, Consumer

OTHER = model.numbered_id(1, 2)


@contextmanager
def listening(
    target: oslo_messaging.Target, endpoint: Endpoint
) -> Iterator[oslo_messaging.Transport]:
    """The bus on which ``endpoint`` receives."""
    bus = transport.get_transport(cfg.CONF, transport.EMBEDDED_URL)
    server = listener(bus, target, endpoint)
    server.start()
    yield bus
    server.stop()
    server.wait()
    bus.cleanup()


class ServerOfTheFirstRelease:
    """Version 1.0: it compares nothing, and has no ``get_revisions``."""

    target = oslo_messaging.Target(version="1.0")

    def __init__(self) -> None:
        self.refusals = Refusals()

    def heartbeat(self, ctxt: Mapping[str, Any], host: str, state: object) -> dict[str, Any]:
        return {"sequence": 7, "clock": 8}

    def get_ports(
        self, ctxt: Mapping[str, Any], host: str, port_ids: list[str] | None = None
    ) -> list[dict[str, Any]]:
        ids = (PORT, OTHER) if port_ids is None else port_ids
        specs = [model.port(GROUP, id=port_id, host=host) for port_id in ids]
        return [codec.to_wire(spec) for spec in (*specs, GROUP)]


class AgentOfTheFirstRelease:
    target = oslo_messaging.Target(version="1.0")

    def __init__(self) -> None:
        self.refusals = Refusals()
        self.casts = queue.SimpleQueue[list[str]]()

    def ports_changed(self, ctxt: Mapping[str, Any], port_ids: list[str]) -> None:
        self.casts.put(port_ids)


def test_a_server_of_the_first_release_answers_an_agent_of_this_one() -> None:
    with listening(transport.server_target("old"), ServerOfTheFirstRelease()) as bus:
        client = ServerClient(bus, "compute-1", timeout=LONGEST)
        assert client.heartbeat({"desired": "0" * 32}) == Held(7, 8, NOT_COMPARED)
        with pytest.raises(oslo_messaging.RemoteError, match="must be one of get_ports, heartbeat"):
            client.get_revisions()


def test_an_agent_reads_everything_from_a_server_of_the_first_release() -> None:
    with listening(transport.server_target("old"), ServerOfTheFirstRelease()) as bus:
        client = ServerClient(bus, "compute-1", timeout=LONGEST)
        assert set(client.get_bound()) == {PORT, OTHER}
        for port_ids, expected in (([PORT], {PORT}), ([], {PORT, OTHER})):
            update = client.get_desired(port_ids, Known({GROUP.id: GROUP.revision}))
            assert {spec.id for spec in update.ports} == expected
            assert [group.rules for group in update.security_groups] == [GROUP.rules]
            assert not update.by_host


def test_a_server_that_was_replaced_by_a_newer_one_is_found_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with listening(transport.server_target("old"), ServerOfTheFirstRelease()) as bus:
        client = ServerClient(bus, "compute-1", timeout=LONGEST)
        assert not client.get_desired([PORT], Known()).by_host
    with listening(transport.server_target("new"), ServerEndpoint(Consumer())) as bus:
        monkeypatch.setattr(client, "_client", ServerClient(bus, "compute-1", LONGEST)._client)
        assert not client.get_desired([PORT], Known()).by_host, "it is not tried each time"
        monkeypatch.setattr(client, "_old_until", 0.0)
        assert client.get_desired([PORT], Known()).by_host


def test_an_agent_of_the_first_release_receives_casts_of_this_one() -> None:
    agent = AgentOfTheFirstRelease()
    with listening(transport.agent_target("old-agent"), agent) as bus:
        AgentClient(bus).ports_changed("old-agent", [PORT])
        assert agent.casts.get(timeout=LONGEST) == [PORT]
