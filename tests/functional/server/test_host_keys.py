"""Which key speaks for a host, after the host's first signed call, and which calls count."""

import itertools
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent_flows.report import FlowName
from agent_flows.rpc.identity import HostTaken, Identity
from agent_flows.rpc.signing import HostKeys, Signer, fingerprint, public_text, sender_of
from agent_flows.server.core import agents, clock, models
from agent_flows.server.core.errors import NotFound
from agent_flows.server.core.liveness import Rules
from lab.server_parts import FakeAgent, Server
from tests.functional.server.conftest import Manage

MakePort = Callable[..., str]
HOST = "host-a"
DOWN = 36  # seconds of silence after which an agent is dead


class Signing(FakeAgent):
    """A process of the host's agent that signs its calls with ``keys``; None signs nothing."""

    def __init__(self, server: Server, keys: HostKeys | None, *earlier: Identity) -> None:
        self.mine = Identity.following(tuple(each.boot_id for each in earlier))
        self.signer = None if keys is None else Signer(self.mine, HOST, keys)
        super().__init__(server, HOST, alive=False)

    @property
    def identity(self) -> Identity | None:
        """As the endpoint knows the sender of the next call."""
        if self.signer is None:
            return self.mine
        return sender_of(self.signer.context("any", {}), "any", HOST, {})

    @identity.setter
    def identity(self, value: Identity | None) -> None:
        assert value is None

    def recorded(self) -> Callable[[], None]:
        """A heartbeat that was recorded on the bus, to be sent again."""
        identity = self.identity
        return lambda: self.server.store.take_heartbeat(HOST, {"ports": 7}, identity) and None


def keys() -> HostKeys:
    return HostKeys(Ed25519PrivateKey.generate())


@pytest.fixture
def own() -> HostKeys:
    return keys()


@pytest.fixture
def first(server: Server, own: HostKeys) -> Signing:
    made = Signing(server, own)
    made.beat()
    return made


def row(server: Server) -> models.Agent:
    with server.database.reader() as session:
        found = session.get(models.Agent, HOST)
    assert found is not None
    return found


def shown(server: Server) -> tuple[str, bool]:
    key = server.show("agents", HOST)["host_key"]
    return key["fingerprint"], key["stranger"]


def print_of(mine: HostKeys) -> str:
    return fingerprint(public_text(mine.current))


IMPOSTORS = pytest.mark.parametrize("signs", [False, True], ids=["unsigned", "another key"])


@IMPOSTORS
def test_invariant_10_another_process_cannot_speak_for_a_host_by_what_the_bus_shows(
    server: Server, first: Signing, own: HostKeys, make_port: MakePort, signs: bool
) -> None:
    """It names the agent's process as its predecessor, or itself that process."""
    port = make_port()
    first.wire(port)
    for its in (Identity.following((first.mine.boot_id,)), first.mine):
        impostor = Signing(server, keys() if signs else None)
        impostor.mine = its
        if signs:
            impostor.signer = Signer(its, HOST, keys())
        lie = first.report(port, FlowName.UNWIRE)
        for attempt in (lambda i=impostor: i.beat(), lambda i=impostor, r=lie: i.send(r)):
            with pytest.raises(HostTaken, match=r"key SHA256:.* speaks for it"):
                attempt()
        with pytest.raises(HostTaken):
            impostor.specs()
    assert server.state(port) == ("ACTIVE", "IN_SYNC")
    assert shown(server) == (print_of(own), False)
    first.wire(port)


@IMPOSTORS
def test_a_stranger_speaks_only_while_the_host_is_silent_and_gives_way_at_once(
    server: Server, first: Signing, own: HostKeys, later: Callable[[float], None], signs: bool
) -> None:
    later(DOWN)
    stranger = Signing(server, keys() if signs else None)
    stranger.beat()
    stranger.beat()
    assert shown(server) == (print_of(own), True)
    first.beat()
    assert shown(server) == (print_of(own), False)
    with pytest.raises(HostTaken):
        stranger.beat()
    # Nor does it keep an agent that was started again from its host.
    later(DOWN)
    stranger.beat()
    again = Signing(server, own)
    again.beat()
    assert row(server).boot_id == again.mine.boot_id


def test_with_strict_keys_a_stranger_never_speaks(
    server: Server, first: Signing, later: Callable[[float], None]
) -> None:
    server.store._rules = Rules(strict_keys=True)
    later(10 * DOWN)
    for impostor in (Signing(server, keys()), Signing(server, None)):
        with pytest.raises(HostTaken, match="host-key forget host-a"):
            impostor.beat()
    first.beat()


def test_an_agent_that_signs_takes_over_from_its_own_earlier_release(
    server: Server, own: HostKeys
) -> None:
    before = Signing(server, None)
    before.beat()
    assert server.show("agents", HOST)["host_key"] is None
    after = Signing(server, own, before.mine)
    after.beat()
    assert shown(server) == (print_of(own), False)
    with pytest.raises(HostTaken):
        before.beat()


def test_a_restarted_agent_goes_on_at_once(server: Server, first: Signing, own: HostKeys) -> None:
    again = Signing(server, own, first.mine)
    again.beat()
    assert row(server).boot_id == again.mine.boot_id


def test_two_agents_with_the_same_key_are_still_two(
    server: Server, first: Signing, own: HostKeys
) -> None:
    assert first.mine
    with pytest.raises(HostTaken, match="the agent with boot id"):
        Signing(server, own).beat()


def test_a_key_is_followed_by_the_one_it_vouches_for(
    server: Server, first: Signing, own: HostKeys
) -> None:
    new = HostKeys(Ed25519PrivateKey.generate(), own.current)
    Signing(server, new, first.mine).beat()
    assert shown(server) == (print_of(new), False)
    with pytest.raises(HostTaken):
        first.beat()


def test_a_recorded_heartbeat_is_no_sign_of_life(
    server: Server, first: Signing, own: HostKeys, later: Callable[[float], None]
) -> None:
    recorded = first.recorded()
    first.beat(ports=1)
    later(DOWN)
    recorded()
    assert server.show("agents", HOST)["alive"] is False
    assert server.show("agents", HOST)["state"]["ports"] == 1
    # Nor is one of an earlier process.
    again = Signing(server, own, first.mine)
    again.beat(ports=2)
    later(DOWN)
    recorded()
    assert server.show("agents", HOST)["alive"] is False
    assert row(server).boot_id == again.mine.boot_id


def test_a_recorded_report_counts_once_and_is_no_sign_of_life(
    server: Server, first: Signing, make_port: MakePort, later: Callable[[float], None]
) -> None:
    port = make_port()
    report = first.report(port)
    sender = first.identity
    for _ in range(2):
        answer = server.store.take_reports(HOST, [report], sender)
        assert answer.accepted == [report.id]
        later(DOWN)
    assert server.show("agents", HOST)["alive"] is False
    assert len(server.find("tasks", resource_id=port, name="bind-vlan")) == 1


@pytest.mark.parametrize("hours", [-1, -30, 30])
def test_an_agent_whose_clock_was_set_goes_on_after_one_answer(
    server: Server,
    first: Signing,
    own: HostKeys,
    monkeypatch: pytest.MonkeyPatch,
    hours: float,
) -> None:
    """As :class:`agent_flows.rpc.agent.ServerClient` does it."""
    true = clock.now().timestamp()
    ticks = itertools.count(int((true + hours * 3600) * 1_000_000))
    monkeypatch.setattr("time.time_ns", lambda: next(ticks) * 1000)
    again = Signing(server, own, first.mine)
    held = again.beat(ports=5)
    assert held.counted is False
    assert again.signer is not None
    monkeypatch.setattr("time.time_ns", lambda: int(true * 1e9))
    again.signer.follow(type(held)(held.sequence, int(true * 1_000_000), number=held.number))
    assert again.beat(ports=5).counted is True
    assert server.show("agents", HOST)["state"]["ports"] == 5


def test_a_forgotten_key_lets_the_agent_that_reports_have_the_host(
    server: Server, first: Signing, later: Callable[[float], None]
) -> None:
    later(DOWN)
    installed = keys()
    again = Signing(server, installed)
    again.beat()
    with server.database.writer() as session:
        assert agents.keys(session) == [
            (
                HOST,
                row(server).host_key and fingerprint(row(server).host_key or ""),
                f"the key {print_of(installed)}",
            )
        ]
        agents.forget_key(session, HOST)
    again.beat()
    assert shown(server) == (print_of(installed), False)
    with pytest.raises(HostTaken):
        first.beat()
    with server.database.writer() as session, pytest.raises(NotFound, match="key of host host-b"):
        agents.forget_key(session, "host-b")


def test_the_administrator_lists_and_forgets_keys(
    manage: Manage, another: Callable[..., Server], own: HostKeys
) -> None:
    assert "older than this program" in manage("host-key", "list").stderr
    assert manage("db", "upgrade").returncode == 0
    assert manage("host-key", "list").stdout.startswith("no host has a key")
    Signing(another(), own).beat()
    assert manage("host-key", "list").stdout == f"{HOST} {print_of(own)}\n"
    done = manage("host-key", "forget", HOST)
    assert done.stdout.startswith(f"forgot {print_of(own)}: ")
    again = manage("host-key", "forget", HOST)
    assert (again.returncode, f"no key of host {HOST}" in again.stderr) == (1, True)
