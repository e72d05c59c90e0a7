"""Events are handled in order, one that fails holds up no other; and the ports that are closed."""

import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, cast

import pytest

from agent_flows.engine.task import TaskFailed
from agent_flows.neutron.agent.events import (
    Event,
    EventLoop,
    PortDeleted,
    PortUpdated,
    Resync,
    RulesChanged,
    endpoint,
    updated,
)
from agent_flows.neutron.agent.quarantine import Endpoint
from agent_flows.neutron.reporting import Reporting
from agent_flows.neutron.resource_cache import SecurityGroupInfo
from agent_flows.report import TaskError, Trouble
from agent_flows.supervision import Troubles
from lab.process import wait_until

A, B, C = (f"00000000-0000-0000-0000-00000000000{number}" for number in (1, 2, 3))
MAC = "fa:16:3e:00:00:01"
INFO = cast(SecurityGroupInfo, None)


class Firewall:
    """Records its calls; ``raises``: exceptions by method or subject."""

    def __init__(self) -> None:
        self.troubles = Troubles()
        self.asked: list[tuple[object, ...]] = []
        self.raises: dict[str, Exception] = {}

    def report_to(self, reporting: Reporting) -> None: ...

    def quarantine(self, ports: Collection[Endpoint]) -> None:
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
        for part in (what, *about):
            if part in self.raises:
                raise self.raises[part]
        self.asked.append((what, *about))

    def did(self, *what: object) -> bool:
        return what in self.asked


def update(port_id: str, **fields: Any) -> PortUpdated:
    vif = types.SimpleNamespace(ofport=int(port_id[-1]))
    return PortUpdated({"port_id": port_id, "mac_address": MAC, "vif_port": vif, **fields})


@pytest.fixture
def firewall() -> Firewall:
    return Firewall()


@pytest.fixture
def troubles() -> Troubles:
    return Troubles()


@pytest.fixture
def failed() -> list[str]:
    """The ports whose events could not be handled."""
    return []


@pytest.fixture
def events(firewall: Firewall, troubles: Troubles, failed: list[str]) -> Iterator[EventLoop]:
    made = EventLoop(
        lambda _: firewall, INFO, troubles, lambda event, exc: failed.append(event.port_id)
    )
    made.start()
    yield made
    made.stop(10)


def until(holds: Callable[[], bool]) -> None:
    wait_until(holds, 10, "the events are handled")


def test_new_ports_are_closed_before_any_other_event(events: EventLoop, firewall: Firewall) -> None:
    events.put(update(A))
    events.put(PortDeleted(B))
    events.put(Resync([C]))
    events.put(RulesChanged("g"))
    until(lambda: firewall.did("refresh", "g"))
    asked = [call for call in firewall.asked if call != ("quarantine",)]
    assert asked == [
        ("quarantine", A), ("handle", A), ("gone", B), ("resync", C), ("refresh", "g")
    ]  # fmt: skip


@pytest.mark.parametrize(
    "exc", [OSError("cannot fork"), AttributeError("stateful"), RuntimeError("changed size")]
)
def test_exception_for_one_port_fails_it_is_a_trouble_and_stops_no_other(
    events: EventLoop, firewall: Firewall, troubles: Troubles, failed: list[str], exc: Exception
) -> None:
    firewall.raises[A] = exc
    events.put(PortDeleted(C))
    until(lambda: firewall.did("gone", C))
    firewall.raises = {}
    original = firewall.handle

    def handle(details: Mapping[str, Any]) -> None:
        if details["port_id"] == A:
            raise exc
        original(details)

    firewall.handle = handle  # type: ignore[method-assign]
    events.put(update(A))
    events.put(update(B))
    until(lambda: firewall.did("handle", B))
    until(lambda: bool(troubles.current()))
    assert failed == [A]
    trouble = troubles.current()[Trouble.PORTS]
    assert A in trouble
    assert str(exc) in trouble
    firewall.handle = original  # type: ignore[method-assign]
    events.put(update(A))
    until(lambda: not troubles.current())
    assert firewall.did("handle", A)


@pytest.mark.parametrize(
    "details",
    [{"port_id": A}, {"port_id": A, "vif_port": None}, {}],
    ids=["without an interface", "unplugged", "empty"],
)
def test_invalid_details_fail_their_port_only(
    events: EventLoop,
    firewall: Firewall,
    troubles: Troubles,
    failed: list[str],
    details: dict[str, Any],
) -> None:
    events.put(PortUpdated(details))
    events.put(update(B))
    until(lambda: firewall.did("handle", B))
    until(lambda: bool(troubles.current()))
    assert failed == [details.get("port_id", "None")]
    assert any(call[0] == "quarantine" and B in call for call in firewall.asked)


def test_port_that_the_switch_refuses_to_close_stops_no_other(
    events: EventLoop, firewall: Firewall
) -> None:
    firewall.raises[A] = TaskFailed(TaskError("QuarantineFailed", "refused"), whole_batch=True)
    original = firewall.handle
    firewall.handle = lambda details: None  # type: ignore[method-assign]
    for port_id in (A, B, C):
        events.put(update(port_id))
    until(lambda: firewall.did("quarantine", B) or firewall.did("quarantine", B, C))
    until(lambda: any(call[0] == "quarantine" and C in call for call in firewall.asked))
    firewall.handle = original  # type: ignore[method-assign]


def test_unreadable_group_stops_no_other_refresh(
    events: EventLoop, firewall: Firewall, troubles: Troubles
) -> None:
    firewall.raises["bad"] = AttributeError("'NoneType' object has no attribute 'stateful'")
    for group in ("good", "bad", "fine"):
        events.put(RulesChanged(group))
    until(lambda: any(call[0] == "refresh" and "good" in call for call in firewall.asked))
    until(lambda: any(call[0] == "refresh" and "fine" in call for call in firewall.asked))
    until(lambda: "bad" in troubles.current().get(Trouble.PORTS, ""))
    del firewall.raises["bad"]
    events.put(RulesChanged("bad"))
    until(lambda: not troubles.current())


def test_events_wait_until_a_firewall_can_be_created(
    firewall: Firewall, troubles: Troubles
) -> None:
    errors = [ImportError("no such driver"), OSError("cannot fork")]

    def make(_: Sequence[Event]) -> Firewall:
        if errors:
            raise errors.pop()
        return firewall

    events = EventLoop(make, INFO, troubles, lambda event, exc: None)
    events.start()
    events.put(update(A))
    until(lambda: Trouble.CONTROL in troubles.current())
    events.put(update(B))
    until(lambda: firewall.did("handle", A) and firewall.did("handle", B))
    until(lambda: not troubles.current())
    events.stop(10)


def details(**fields: Any) -> dict[str, Any]:
    return {
        "port_id": A, "mac_address": MAC, "local_vlan": 3, "network_type": "vxlan",
        "physical_network": None, "segmentation_id": 77, "allowed_address_pairs": [],
        "vif_port": types.SimpleNamespace(ofport=5), **fields,
    }  # fmt: skip


def closed(*events: Event) -> list[Endpoint]:
    return [endpoint(event) for event in updated(events)]


def test_port_is_closed_under_every_mac_it_may_use() -> None:
    pairs = [{"ip_address": "10.0.0.9", "mac_address": "FA:16:3E:00:00:09"},
             {"ip_address": "10.0.0.8"}]  # fmt: skip
    macs = frozenset({MAC, "fa:16:3e:00:00:09"})
    assert closed(PortUpdated(details(allowed_address_pairs=pairs))) == [Endpoint(A, 5, 3, macs)]


def test_endpoint_on_a_physical_network_has_the_segments_tag() -> None:
    vlan = details(network_type="vlan", physical_network="physnet1")
    flat = details(network_type="flat", physical_network="physnet1", segmentation_id=None)
    assert [endpoint.segment for endpoint in closed(PortUpdated(vlan))] == [77]
    assert [endpoint.segment for endpoint in closed(PortUpdated(flat))] == [0]


def test_port_without_local_vlan_is_closed_by_ofport() -> None:
    assert closed(PortUpdated(details(local_vlan=None))) == [Endpoint(A, 5)]


def test_invalid_and_multicast_macs_are_left_out() -> None:
    pairs = [{"ip_address": "10.0.0.9", "mac_address": mac}
             for mac in ("output:1", "03:bf:c0:00:02:64", "fa:16:3e:00:00:09")]  # fmt: skip
    [found] = closed(PortUpdated(details(allowed_address_pairs=pairs)))
    assert found == Endpoint(A, 5, 3, frozenset({MAC, "fa:16:3e:00:00:09"}))
    [found] = closed(PortUpdated(details(mac_address="output:1")))
    assert found == Endpoint(A, 5, 3)


def test_port_deleted_after_its_update_is_not_closed() -> None:
    assert closed(PortUpdated(details()), PortDeleted(A), Resync(None)) == []
    assert closed(PortDeleted(A), PortUpdated(details())) == [Endpoint(A, 5, 3, frozenset({MAC}))]
