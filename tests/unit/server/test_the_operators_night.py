"""The reason of a port and the health of hosts; a request that cannot be served is refused."""

import datetime
from collections.abc import Callable
from typing import Any

import falcon.testing
import pytest

from agent_flows.rpc.identity import HostTaken, Identity
from agent_flows.server.core import clock
from agent_flows.server.standalone.api.resources import Health
from lab.model import new_id
from lab.server_parts import FakeAgent, Server

PORT = new_id()


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the server's clock by seconds."""
    begun, passed = clock.now(), [0.0]

    def pass_(seconds: float) -> None:
        passed[0] += seconds
        monkeypatch.setattr(clock, "now", lambda: begun + datetime.timedelta(seconds=passed[0]))

    return pass_


@pytest.fixture
def make(server: Server, network: str, group: str) -> Callable[..., str]:
    def make(**fields: Any) -> str:
        body = {
            "network_id": network,
            "mac_address": "fa:16:3e:00:00:01",
            "security_groups": [group],
            "binding:host_id": "host-a",
            **fields,
        }
        server.put("ports", PORT, **body)
        return PORT

    return make


def reason(server: Server) -> str:
    shown = server.show("ports", PORT)["reason"]
    assert server.find("ports")[0]["reason"] == shown
    return shown or ""


def test_refusal_of_the_switch_is_the_reason_with_task_and_remedy(
    server: Server, agent: FakeAgent, make: Callable[..., str]
) -> None:
    agent.send(agent.report(make(), fails="apply-security-groups"))
    assert "apply-security-groups failed: SwitchError: the switch refused a flow." in reason(server)
    assert "To do: " in reason(server)
    agent.wire(PORT)
    assert server.show("ports", PORT)["reason"] is None


def test_host_without_an_agent_is_named_as_the_reason(
    server: Server, make: Callable[..., str]
) -> None:
    make(**{"binding:host_id": "host-z"})
    assert "No agent was ever seen on host host-z" in reason(server)


def test_dead_agent_is_the_reason_of_its_old_and_new_ports(
    server: Server, agent: FakeAgent, make: Callable[..., str], later: Callable[[float], None]
) -> None:
    agent.wire(make())
    later(120)
    server.sweeper.sweep()
    assert "agent of host host-a has been silent since" in reason(server)
    make(mac_address="fa:16:3e:00:00:02")
    assert "agent of host host-a has been silent since" in reason(server)


def test_administratively_down_is_the_reason(
    server: Server, agent: FakeAgent, make: Callable[..., str]
) -> None:
    agent.wire(make(admin_state_up=False))
    assert server.state(PORT) == ("DOWN", "IN_SYNC")
    assert reason(server).startswith("Administratively down")


def test_port_without_a_group_shows_that_it_lets_nothing_in(
    server: Server, agent: FakeAgent, make: Callable[..., str]
) -> None:
    agent.wire(make(security_groups=[]))
    assert "No security group: lets nothing in" in reason(server)
    make(security_groups=[], port_security_enabled=False)
    agent.wire(PORT)
    assert server.show("ports", PORT)["reason"] is None


def test_the_reason_is_read_only(server: Server, network: str) -> None:
    answer = server.try_put(
        "ports", PORT, network_id=network, mac_address="fa:16:3e:00:00:01", reason="because"
    )
    assert (answer.status_code, answer.json["error"]["field"]) == (400, "reason")


def ask(server: Server, path: str) -> tuple[int, str]:
    answer = server.rest.simulate_post(path)
    error = answer.json.get("error")
    return answer.status_code, error["message"] if error else ""


def test_resync_without_a_live_agent_is_refused_and_sends_nothing(
    server: Server, make: Callable[..., str], later: Callable[[float], None]
) -> None:
    make()
    server.new_casts()
    status, message = ask(server, f"/ports/{PORT}/resync")
    assert status == 409
    assert message == "no agent was ever seen on host host-a; nothing was sent"
    FakeAgent(server, "host-a")
    server.store.take_heartbeat("host-a", {})
    server.new_casts()
    assert ask(server, f"/ports/{PORT}/resync")[0] == 202
    later(120)
    for path in (f"/ports/{PORT}/resync", "/agents/host-a/resync"):
        status, message = ask(server, path)
        assert status == 409
        assert "host-a has been silent since" in message
        assert "nothing was sent" in message
    assert server.new_casts() == [("host-a", "resync", frozenset({PORT}))]


def test_resync_of_a_host_reaches_its_agent(server: Server) -> None:
    server.store.take_heartbeat("host-a", {})
    server.new_casts()
    assert ask(server, "/agents/host-a/resync")[0] == 202
    assert server.new_casts() == [("host-a", "resync", frozenset())]
    assert ask(server, "/agents/host-b/resync")[0] == 404


def test_agent_can_be_deleted_and_reports_again(server: Server) -> None:
    server.store.take_heartbeat("host-a", {})
    server.store.take_heartbeat("host-b", {})
    assert server.delete("agents", "host-a").status_code == 204
    assert [agent["host"] for agent in server.find("agents")] == ["host-b"]
    for gone in ("host-a", "%00", "x" * 300):
        assert server.delete("agents", gone).status_code == 404
    server.store.take_heartbeat("host-a", {})
    assert len(server.find("agents")) == 2


def health(server: Server) -> tuple[int, Any]:
    answer = server.rest.simulate_get("/healthz")
    return answer.status_code, answer.json


def test_hosts_in_trouble_degrade_the_health_and_are_named(
    server: Server, later: Callable[[float], None]
) -> None:
    server.store.take_heartbeat("host-a", {})
    assert health(server) == (200, {"status": "ok", "failures": {}})
    troubles = {"switch": "ovs-vswitchd does not answer", "outbox": "the disk is full"}
    server.store.take_heartbeat("host-a", {"troubles": troubles, "trouble": "x"})
    status, shown = health(server)
    assert (status, shown["status"], shown["failures"]) == (200, "degraded", {})
    assert shown["agents"] == {
        "host-a": "switch: ovs-vswitchd does not answer; outbox: the disk is full"
    }
    server.store.take_heartbeat("host-a", {"troubles": {}, "trouble": None})
    assert health(server)[1]["status"] == "ok"
    later(120)
    assert "no heartbeat since" in health(server)[1]["agents"]["host-a"]


def test_public_health_does_not_name_hosts() -> None:
    app = falcon.App()
    app.add_route("/healthz", Health({}, lambda: {"host-a": "the disk is full"}, names=False))
    answer = falcon.testing.TestClient(app).simulate_get("/healthz")
    assert answer.json == {"status": "degraded", "failures": {}}


def test_two_agents_of_one_host_are_shown_and_degrade_the_health(
    server: Server, later: Callable[[float], None]
) -> None:
    first, second = Identity(new_id()), Identity(new_id())
    server.store.take_heartbeat("host-a", {}, first)
    with pytest.raises(HostTaken):
        server.store.take_heartbeat("host-a", {}, second)
    (shown,) = server.find("agents")
    assert shown["conflict"]["boot_id"] == second.boot_id
    assert "another agent reports as this host" in health(server)[1]["agents"]["host-a"]
    later(30)
    server.store.take_heartbeat("host-a", {}, first)
    later(30)
    assert server.find("agents")[0]["conflict"] is None
    assert health(server)[1]["status"] == "ok"


def test_invalid_troubles_of_an_agent_break_no_answer(
    server: Server, make: Callable[..., str]
) -> None:
    evil: dict[str, Any] = {"troubles": {"x" * 5000: 7, "switch": ["no"], "nonsense": "\x1b[31m"}}
    server.store.take_heartbeat("host-a", evil)
    make()
    assert reason(server)
    assert health(server)[0] == 200
    assert all(line.isprintable() for line in health(server)[1]["agents"].values())
