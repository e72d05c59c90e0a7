"""Neutron's server and the agent's resource cache calculate one digest of a host's desired state,
and an agent that missed something gets exactly that."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from tests.functional.neutron_server.stage import Body, Host, Neutron
from tests.functional.neutron_server.test_agents import agent_of

MakePort = Callable[..., Body]
WEB = {"direction": "ingress", "protocol": "tcp", "port_range_min": 80, "port_range_max": 80}


_numbers = itertools.count(1)


def address() -> str:
    """One that no port has."""
    return f"10.0.210.{next(_numbers)}"


class Scene:
    """A port here whose group lets in a group of others and an address group, and a member."""

    def __init__(self, neutron: Neutron, host: Host, make_port: MakePort) -> None:
        self.neutron, self.host = neutron, host
        self.group = neutron.create("security-groups", name="here")["id"]
        self.friends = neutron.create("security-groups", name="friends")["id"]
        self.addresses = neutron.create(
            "address-groups", name="office", addresses=["192.0.2.0/24", "198.51.100.7/32"]
        )["id"]
        self.rule(remote_group_id=self.friends)
        self.rule(remote_address_group_id=self.addresses)
        self.port = make_port(
            host,
            security_groups=[self.group],
            allowed_address_pairs=[{"ip_address": "192.0.2.9"}],
        )["id"]
        self.member = make_port(security_groups=[self.friends])["id"]

    def rule(self, **fields: Any) -> str:
        made: str = self.neutron.create(
            "security-group-rules", security_group_id=self.group, **{**WEB, **fields}
        )["id"]
        return made

    def same(self) -> bool:
        desired, had = self.neutron.do("revisions", host=self.host.name)
        return bool(desired == had)

    def catch_up(self) -> int:
        """How many resources the agent needed."""
        number: int = self.neutron.do("catch_up", host=self.host.name)
        return number


@pytest.fixture
def scene(neutron: Neutron, ours: Host, make_port: MakePort) -> Scene:
    """Its agent has everything."""
    made = Scene(neutron, ours, make_port)
    neutron.do("start_agent", host=ours.name)
    made.catch_up()
    assert made.same()
    return made


def test_an_agent_that_was_just_started_differs_until_it_has_caught_up(
    neutron: Neutron, scene: Scene
) -> None:
    neutron.do("start_agent", host=scene.host.name)
    assert not scene.same()
    assert scene.catch_up() > 0
    assert scene.same()
    assert scene.catch_up() == 0


def add_member(scene: Scene, make_port: MakePort) -> None:
    make_port(security_groups=[scene.friends])


CHANGES: dict[str, Callable[[Scene, MakePort], object]] = {
    "a member joins": add_member,
    "a member leaves": lambda scene, _: scene.neutron.change(scene.member, security_groups=[]),
    "a member is deleted": lambda scene, _: scene.neutron.rest("DELETE", f"/ports/{scene.member}"),
    "a member has another address": lambda scene, _: scene.neutron.change(
        scene.member, fixed_ips=[{"ip_address": address()}]
    ),
    "a member has an address pair": lambda scene, _: scene.neutron.change(
        scene.member, allowed_address_pairs=[{"ip_address": "2001:db8::/64"}]
    ),
    "a member has another MAC address": lambda scene, _: scene.neutron.change(
        scene.member, mac_address=f"02:00:00:00:01:{next(_numbers):02x}"
    ),
    "the address group has another address": lambda scene, _: scene.neutron.rest(
        "PUT", f"/address-groups/{scene.addresses}/add_addresses",
        {"addresses": ["2001:db8:1::/48"]},
    ),
    "a rule is added": lambda scene, _: scene.rule(remote_ip_prefix="203.0.113.0/24"),
    "the port has another address": lambda scene, _: scene.neutron.change(
        scene.port, fixed_ips=[{"ip_address": address()}]
    ),
    "the port has another pair": lambda scene, _: scene.neutron.change(
        scene.port,
        allowed_address_pairs=[{"ip_address": "192.0.2.9", "mac_address": "02:00:00:00:00:09"}],
    ),
    "the port has no port security": lambda scene, _: scene.neutron.change(
        scene.port, security_groups=[], allowed_address_pairs=[], port_security_enabled=False
    ),
    "the port is disabled": lambda scene, _: scene.neutron.change(
        scene.port, admin_state_up=False
    ),
    "the port is deleted": lambda scene, _: scene.neutron.rest("DELETE", f"/ports/{scene.port}"),
    "the port is unbound": lambda scene, _: scene.neutron.change(
        scene.port, **{"binding:host_id": ""}
    ),
}  # fmt: skip
# Of what is new here an agent learns only when it asks.
NEW_HERE: dict[str, Callable[[Scene, MakePort], object]] = {
    "the port has another group": lambda scene, _: scene.neutron.change(
        scene.port, security_groups=[scene.friends]
    ),
    "another port is bound": lambda scene, make_port: make_port(scene.host),
}


@pytest.mark.parametrize(
    "change", [*CHANGES.values(), *NEW_HERE.values()], ids=[*CHANGES, *NEW_HERE]
)
def test_a_change_that_was_lost_is_fetched(
    neutron: Neutron,
    scene: Scene,
    make_port: MakePort,
    change: Callable[[Scene, MakePort], object],
) -> None:
    neutron.do("lose_pushes", host=scene.host.name)
    before, _ = neutron.do("revisions", host=scene.host.name)
    change(scene, make_port)
    after, _ = neutron.do("revisions", host=scene.host.name)
    assert after != before
    assert not scene.same()
    scene.catch_up()
    assert scene.same()


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_that_is_pushed_makes_no_difference(
    scene: Scene, make_port: MakePort, change: Callable[[Scene, MakePort], object]
) -> None:
    change(scene, make_port)
    assert scene.same()


def test_a_change_that_the_switch_does_not_depend_on_makes_no_difference(
    neutron: Neutron, scene: Scene
) -> None:
    neutron.do("lose_pushes", host=scene.host.name)
    for port in (scene.port, scene.member):
        neutron.change(port, name="new", description="new")
    scene.host.plug(scene.port)
    scene.host.reports(scene.port)
    assert neutron.state(scene.port) == ("ACTIVE", "IN_SYNC")
    assert scene.same()


def beats(scene: Scene, later: float = 0.0) -> str:
    """The agent's heartbeat, with the digest of what it has; the server's digest. ``later``: so
    many seconds from now."""
    scene.neutron.do("later", seconds=later)
    digest = scene.neutron.do("digest", host=scene.host.name)
    state = {"bridge": "br-int", "desired": digest}
    same = scene.same()
    answer = scene.neutron.do("heartbeat", host=scene.host.name, state=state)
    assert (digest == answer["desired"]) == same
    return str(answer["desired"])


def test_ports_on_a_host_that_lacks_a_change_wait_for_a_report_and_are_unknown_without_one(
    neutron: Neutron, scene: Scene, make_port: MakePort
) -> None:
    scene.host.plug(scene.port)
    scene.host.reports(scene.port)
    in_step = beats(scene)
    neutron.do("lose_pushes", host=scene.host.name)
    add_member(scene, make_port)
    assert beats(scene) != in_step
    assert neutron.state(scene.port) == ("ACTIVE", "IN_SYNC")
    neutron.do("casts")
    beats(scene, later=80)
    assert neutron.state(scene.port) == ("ACTIVE", "SYNCING")
    assert ["resync", scene.host.name, [scene.port]] in neutron.do("casts")
    # A report names no members.
    scene.host.reports(scene.port)
    beats(scene, later=85)
    assert neutron.state(scene.port) == ("ACTIVE", "SYNCING")
    assert neutron.do("casts") == []
    beats(scene, later=150)
    neutron.do("sweep")
    assert neutron.state(scene.port) == ("ACTIVE", "UNKNOWN")
    scene.catch_up()
    assert agent_of(neutron, scene.host)["desired"]["in_step"] is False
    beats(scene, later=155)
    assert agent_of(neutron, scene.host)["desired"]["in_step"] is True
    # Whatever casts are lost, its agent learns that a report is missing.
    desired, _ = neutron.do("revisions", host=scene.host.name)
    assert desired["awaited"] == [scene.port]
    scene.host.reports(scene.port)
    beats(scene, later=160)
    assert neutron.state(scene.port) == ("ACTIVE", "IN_SYNC")


def test_a_port_that_no_agent_has_reported_yet_is_no_difference(
    neutron: Neutron, plain: Host, make_port: MakePort
) -> None:
    """It was bound before the host got our extension."""
    port = make_port(plain)["id"]
    plain.sends_state("agent_flows")
    counted = make_port(plain)["id"]
    neutron.do("start_agent", host=plain.name)
    neutron.change(port, name="new")
    neutron.do("catch_up", host=plain.name)
    desired, had = neutron.do("revisions", host=plain.name)
    assert list(had["ports"]) == [counted]
    assert desired == had
    plain.reports(port)
    desired, had = neutron.do("revisions", host=plain.name)
    assert desired != had
    neutron.do("catch_up", host=plain.name)
    desired, had = neutron.do("revisions", host=plain.name)
    assert had["ports"].keys() == {port, counted}
    assert desired == had


def test_of_a_large_group_only_the_members_that_changed_are_fetched(
    neutron: Neutron, scene: Scene, make_port: MakePort
) -> None:
    for _ in range(5):
        make_port(security_groups=[scene.friends])
    scene.catch_up()
    neutron.do("lose_pushes", host=scene.host.name)
    add_member(scene, make_port)
    neutron.rest("DELETE", f"/ports/{scene.member}")
    assert scene.catch_up() == 1
    assert scene.same()


def test_what_was_read_of_a_group_serves_every_host_with_it_for_some_seconds(
    neutron: Neutron, scene: Scene, make_port: MakePort
) -> None:
    other = Host(neutron, "agent_flows")
    make_port(other, security_groups=[scene.group])
    neutron.do("forget_content")
    first, second = (neutron.do("queries", host=name) for name in (scene.host.name, other.name))
    assert first > second
    for _ in range(5):
        make_port(other, security_groups=[scene.group])
    assert neutron.do("queries", host=other.name) == second <= 5
