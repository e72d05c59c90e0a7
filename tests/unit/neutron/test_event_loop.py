"""What the agent said is acted upon in order, and one event that cannot be keeps none of the others
back."""

import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, cast

import pytest

from agent_flows.engine.task import TaskFailed
from agent_flows.neutron.agent.event_loop import Events
from agent_flows.neutron.agent.port_events import Event, Gone, Here, Resync, Rules
from agent_flows.neutron.agent.quarantine import Closed
from agent_flows.neutron.reporting import Reporting
from agent_flows.neutron.resource_cache import SecurityGroupInfo
from agent_flows.report import TaskError, Trouble
from agent_flows.supervision import Troubles
from lab.process import wait_until

A, B, C = (f"00000000-0000-0000-0000-00000000000{number}" for number in (1, 2, 3))
INFO = cast(SecurityGroupInfo, None)


class Firewall:
    """Notes what it is asked; ``raises`` says what it raises, and about whom."""

    def __init__(self) -> None:
        self.troubles = Troubles()
        self.asked: list[tuple[object, ...]] = []
        self.raises: dict[str, Exception] = {}

    def report_to(self, reporting: Reporting) -> None: ...

    def quarantine(self, ports: Collection[Closed]) -> None:
        self._note("quarantine", *(port.port_id for port in ports))

    def handle(self, details: Mapping[str, Any]) -> None:
        self._note("handle", str(details["port_id"]))

    def gone(self, port_id: str) -> None:
        self._note("gone", port_id)

    def refresh(self, groups: Collection[str], info: SecurityGroupInfo) -> None:
        self._note("refresh", *groups)

    def resync(self, port_ids: Collection[str] | None = None) -> None:
        self._note("resync", *(port_ids or ()))

    def _note(self, what: str, *about: str) -> None:
        for each in (what, *about):
            if each in self.raises:
                raise self.raises[each]
        self.asked.append((what, *about))

    def did(self, *what: object) -> bool:
        return what in self.asked


def here(port_id: str, **fields: Any) -> Here:
    vif = types.SimpleNamespace(ofport=int(port_id[-1]))
    return Here({"port_id": port_id, "mac_address": "fa:16:3e:00:00:01", "vif_port": vif, **fields})


@pytest.fixture
def firewall() -> Firewall:
    return Firewall()


@pytest.fixture
def troubles() -> Troubles:
    return Troubles()


@pytest.fixture
def failed() -> list[str]:
    """The ports whose events could not be acted upon."""
    return []


@pytest.fixture
def events(firewall: Firewall, troubles: Troubles, failed: list[str]) -> Iterator[Events]:
    made = Events(
        lambda _: firewall, INFO, troubles, lambda event, exc: failed.append(event.port_id)
    )
    made.start()
    yield made
    made.stop(10)


def until(holds: Callable[[], bool]) -> None:
    wait_until(holds, 10, "it is done")


def test_new_ports_are_closed_before_anything_else_is_done_about_them(
    events: Events, firewall: Firewall
) -> None:
    events.put(here(A))
    events.put(Gone(B))
    events.put(Resync([C]))
    events.put(Rules("g"))
    until(lambda: firewall.did("refresh", "g"))
    asked = [each for each in firewall.asked if each != ("quarantine",)]
    assert asked == [
        ("quarantine", A), ("handle", A), ("gone", B), ("resync", C), ("refresh", "g")
    ]  # fmt: skip


@pytest.mark.parametrize(
    "exc", [OSError("cannot fork"), AttributeError("stateful"), RuntimeError("changed size")]
)
def test_an_exception_about_one_port_is_its_outcome_and_the_hosts_trouble_and_the_rest_goes_on(
    events: Events, firewall: Firewall, troubles: Troubles, failed: list[str], exc: Exception
) -> None:
    firewall.raises[A] = exc
    events.put(Gone(C))
    until(lambda: firewall.did("gone", C))
    firewall.raises = {}
    original = firewall.handle

    def handle(details: Mapping[str, Any]) -> None:
        if details["port_id"] == A:
            raise exc
        original(details)

    firewall.handle = handle  # type: ignore[method-assign]
    events.put(here(A))
    events.put(here(B))
    until(lambda: firewall.did("handle", B))
    until(lambda: bool(troubles.current()))
    assert failed == [A]
    trouble = troubles.current()[Trouble.PORTS]
    assert A in trouble
    assert str(exc) in trouble
    firewall.handle = original  # type: ignore[method-assign]
    events.put(here(A))
    until(lambda: not troubles.current())
    assert firewall.did("handle", A)


@pytest.mark.parametrize(
    "details",
    [{"port_id": A}, {"port_id": A, "vif_port": None}, {}],
    ids=["without an interface", "unplugged", "empty"],
)
def test_details_of_which_nothing_can_be_made_are_set_aside(
    events: Events,
    firewall: Firewall,
    troubles: Troubles,
    failed: list[str],
    details: dict[str, Any],
) -> None:
    events.put(Here(details))
    events.put(here(B))
    until(lambda: firewall.did("handle", B))
    until(lambda: bool(troubles.current()))
    assert failed == [details.get("port_id", "None")]
    assert any(each[0] == "quarantine" and B in each for each in firewall.asked)


def test_a_port_that_the_switch_does_not_close_keeps_no_other_from_being_closed(
    events: Events, firewall: Firewall
) -> None:
    firewall.raises[A] = TaskFailed(TaskError("QuarantineFailed", "refused"), whole_batch=True)
    original = firewall.handle
    firewall.handle = lambda details: None  # type: ignore[method-assign]
    for port_id in (A, B, C):
        events.put(here(port_id))
    until(lambda: firewall.did("quarantine", B) or firewall.did("quarantine", B, C))
    until(lambda: any(each[0] == "quarantine" and C in each for each in firewall.asked))
    firewall.handle = original  # type: ignore[method-assign]


def test_a_group_that_cannot_be_read_keeps_no_other_from_being_refreshed(
    events: Events, firewall: Firewall, troubles: Troubles
) -> None:
    firewall.raises["bad"] = AttributeError("'NoneType' object has no attribute 'stateful'")
    for group in ("good", "bad", "fine"):
        events.put(Rules(group))
    until(lambda: any(each[0] == "refresh" and "good" in each for each in firewall.asked))
    until(lambda: any(each[0] == "refresh" and "fine" in each for each in firewall.asked))
    until(lambda: "bad" in troubles.current().get(Trouble.PORTS, ""))
    del firewall.raises["bad"]
    events.put(Rules("bad"))
    until(lambda: not troubles.current())


def test_what_is_heard_before_there_is_a_firewall_is_not_lost_when_that_cannot_be_made(
    firewall: Firewall, troubles: Troubles
) -> None:
    errors = [ImportError("no such driver"), OSError("cannot fork")]

    def make(_: Sequence[Event]) -> Firewall:
        if errors:
            raise errors.pop()
        return firewall

    events = Events(make, INFO, troubles, lambda event, exc: None)
    events.start()
    events.put(here(A))
    until(lambda: Trouble.CONTROL in troubles.current())
    events.put(here(B))
    until(lambda: firewall.did("handle", A) and firewall.did("handle", B))
    until(lambda: not troubles.current())
    events.stop(10)
