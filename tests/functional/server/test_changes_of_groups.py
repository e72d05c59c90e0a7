"""A host that reads only what changed of its groups has what one has that reads everything; and so
has one that only follows the server's casts.
"""

from collections.abc import Callable, Collection

import oslo_messaging
import pytest
import sqlalchemy as sa

from agent_flows.agent.knowledge import Knowledge
from agent_flows.rpc.desired import Known, Update
from agent_flows.server.standalone import models
from agent_flows.spec import DesiredState
from agent_flows.validation import Invalid
from lab.model import new_id
from lab.server_parts import Server

MakePort = Callable[..., str]
EGRESS = {"direction": "egress"}


class Host:
    """``host-a``; ``last`` is the last answer that it got."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._knowledge = Knowledge()
        self.last = Update()

    def read(self, *port_ids: str) -> Update:
        self._knowledge.ask(self._answer, port_ids)
        return self.last

    def casts(self) -> list[Update]:
        """What casts to the host have carried since this was last asked."""
        self._server.new_casts()
        changes, self._server.recorder.changes = self._server.recorder.changes, []
        return [change for host, change in changes if host == "host-a"]

    def follow(self, *changes: Update) -> None:
        for change in changes:
            self._knowledge.follow(change)

    def has(self) -> DesiredState:
        return self._knowledge.state(())

    def _answer(self, port_ids: Collection[str], known: Known) -> Update:
        self.last = self._server.store.get_desired("host-a", port_ids, known)
        return self.last


def everything(server: Server, *port_ids: str) -> DesiredState:
    host = Host(server)
    host.read(*port_ids)
    return host.has()


def is_empty(update: Update) -> bool:
    return not any(update.to_wire().values())


@pytest.fixture
def refers(server: Server, group: str) -> str:
    """A group whose rule refers to ``group`` and to an address group."""
    addresses, own = new_id(), new_id()
    server.put("address-groups", addresses, addresses=["192.0.2.0/24"])
    rules = [
        {"direction": "ingress", "remote_group_id": group},
        {"direction": "ingress", "remote_address_group_id": addresses},
    ]
    server.put("security-groups", own, security_group_rules=rules)
    return own


def test_nothing_is_sent_that_the_host_has(
    server: Server, make_port: MakePort, refers: str
) -> None:
    port, host = make_port(security_groups=[refers]), Host(server)
    host.read(port)
    assert is_empty(host.read())
    again = host.read(port)
    assert [spec.id for spec in again.ports] == [port]
    assert not [*again.security_groups, *again.members, *again.address_groups]


def test_members_that_joined_changed_and_left_are_all_that_is_sent(
    server: Server, make_port: MakePort, refers: str, group: str
) -> None:
    port, host = make_port(security_groups=[refers]), Host(server)
    members = [make_port(fixed_ips=[{"ip_address": f"10.9.0.{n}"}]) for n in range(1, 9)]
    host.read(port)
    assert host.has() == everything(server, port)
    joined = make_port(fixed_ips=[{"ip_address": "10.9.0.9"}], **{"binding:host_id": None})
    server.delete("ports", members[0])
    update = host.read()
    [change] = update.members
    assert set(change.ports) == {joined, members[0]}
    assert [each.rules for each in update.security_groups] == [None]
    assert host.has() == everything(server, port)
    assert is_empty(host.read())


def test_rules_are_sent_without_the_members(
    server: Server, make_port: MakePort, refers: str, group: str
) -> None:
    port, host = make_port(security_groups=[refers]), Host(server)
    make_port(fixed_ips=[{"ip_address": "10.9.0.1"}])
    host.read(port)
    rules = [EGRESS, {"direction": "ingress", "remote_group_id": group}]
    server.put("security-groups", refers, security_group_rules=rules)
    update = host.read()
    assert [len(each.rules or ()) for each in update.security_groups] == [2]
    assert update.members == []
    assert host.has() == everything(server, port)


def test_a_host_that_lacks_a_change_that_is_not_kept_reads_all_members(
    server: Server, make_port: MakePort, refers: str, group: str
) -> None:
    port, host = make_port(security_groups=[refers]), Host(server)
    first, _ = (make_port(fixed_ips=[{"ip_address": f"10.9.0.{n}"}]) for n in (1, 2))
    host.read(port)
    server.delete("ports", first)
    with server.database.writer() as session:
        session.execute(sa.delete(models.MemberChange))
    make_port(fixed_ips=[{"ip_address": "10.9.0.3"}])
    [change] = host.read().members
    assert change.since is None
    assert host.has() == everything(server, port)


def test_a_host_with_revisions_of_a_lost_database_reads_everything(
    server: Server, make_port: MakePort, refers: str, group: str
) -> None:
    port = make_port(security_groups=[refers])
    make_port(fixed_ips=[{"ip_address": "10.9.0.1"}])
    update = server.store.get_desired("host-a", [port], Known({refers: 99}, {group: 99}))
    assert [len(each.rules or ()) for each in update.security_groups] == [2]
    assert [(change.since, len(change.ports)) for change in update.members] == [(None, 1)]


def test_a_group_that_does_not_exist_any_more_is_named(server: Server, refers: str) -> None:
    gone = new_id()
    assert server.store.get_desired("host-a", [], Known({gone: 1})).gone == [gone]


Step = Callable[[], object]


@pytest.fixture
def following(server: Server, make_port: MakePort, refers: str) -> Host:
    """It has one port, which is in ``refers``."""
    host = Host(server)
    host.read(make_port(security_groups=[refers]))
    host.casts()
    return host


@pytest.fixture
def steps(server: Server, make_port: MakePort, refers: str, group: str) -> list[Step]:
    """Changes of everything that the host's port depends on, one after the other."""
    members: list[str] = []

    def joins() -> None:
        address = [{"ip_address": f"10.9.0.{len(members) + 1}"}]
        members.append(make_port(fixed_ips=address, **{"binding:host_id": None}))

    def has(*rules: dict[str, str]) -> None:
        server.put("security-groups", refers, security_group_rules=rules)

    another, addresses = new_id(), new_id()
    server.put("security-groups", another)
    server.put("address-groups", addresses, addresses=["198.51.100.0/24"])
    ingress = {"direction": "ingress"}
    to_group = {**ingress, "remote_group_id": group}
    to_addresses = {**ingress, "remote_address_group_id": addresses}
    return [
        joins,
        lambda: has(EGRESS, to_group),
        joins,
        lambda: server.delete("ports", members[0]),
        lambda: has(to_group, to_addresses),
        lambda: server.put("address-groups", addresses, addresses=["203.0.113.0/24"]),
        lambda: has(to_addresses, EGRESS),
    ]


def test_a_host_that_follows_the_casts_has_everything_without_asking(
    server: Server, following: Host, steps: list[Step]
) -> None:
    for number, step in enumerate(steps):
        step()
        changes = following.casts()
        assert len(changes) == 1, number
        following.follow(*changes)
        assert is_empty(following.read()), number


def test_casts_that_come_twice_or_late_change_nothing(
    server: Server, following: Host, steps: list[Step]
) -> None:
    changes = []
    for step in steps:
        step()
        changes += following.casts()
    following.follow(*(change for each in changes for change in (each, each)))
    assert is_empty(following.read())
    after = following.has()
    for change in changes[:-1]:
        with pytest.raises(Invalid):
            following.follow(change)
    assert following.has() == after


def test_a_host_that_missed_a_cast_must_ask(
    server: Server, following: Host, steps: list[Step]
) -> None:
    # After the last one nothing refers to the members any more.
    for step in steps[:-1]:
        step()
        following.casts()
        joins, before = steps[0], following.has()
        joins()
        with pytest.raises(Invalid):
            following.follow(*following.casts())
        assert following.has() == before
        following.read()
        assert is_empty(following.read())


def test_rules_for_members_that_the_host_has_not_must_be_asked_for(
    server: Server, make_port: MakePort, following: Host, refers: str
) -> None:
    """It would take a group without members for one that has been realised."""
    another = new_id()
    server.put("security-groups", another)
    make_port(security_groups=[another], **{"binding:host_id": None})
    rules = [{"direction": "ingress", "remote_group_id": another}]
    server.put("security-groups", refers, security_group_rules=rules)
    with pytest.raises(Invalid):
        following.follow(*following.casts())


def test_rules_for_members_that_the_host_has_of_before_must_be_asked_for(
    server: Server, make_port: MakePort, following: Host, refers: str
) -> None:
    """The cast about the members was lost, so the group must not count as realised."""
    another, other_own = new_id(), new_id()
    server.put("security-groups", another)
    rules = [{"direction": "ingress", "remote_group_id": another}]
    server.put("security-groups", other_own, security_group_rules=rules)
    following.read(make_port(security_groups=[other_own]))
    make_port(security_groups=[another], **{"binding:host_id": None})
    following.casts()
    server.put("security-groups", refers, security_group_rules=rules)
    with pytest.raises(Invalid):
        following.follow(*following.casts())


def test_all_hosts_get_the_same_and_what_is_too_large_is_only_named(
    server: Server, make_port: MakePort, refers: str
) -> None:
    for host in ("host-a", "host-b"):
        make_port(security_groups=[refers], **{"binding:host_id": host})
    server.new_casts()
    server.recorder.changes.clear()
    server.put("security-groups", refers, security_group_rules=[EGRESS])
    named = frozenset({refers})
    expected = {(host, "security_groups_changed", named) for host in ("host-a", "host-b")}
    assert expected <= set(server.new_casts())
    assert {host for host, _ in server.recorder.changes} == {"host-a", "host-b"}
    assert len({repr(change) for _, change in server.recorder.changes}) == 1
    server.recorder.changes.clear()
    tcp = {**EGRESS, "protocol": "tcp"}
    many = [{**tcp, "port_range_min": n, "port_range_max": n} for n in range(1, 120)]
    server.put("security-groups", refers, security_group_rules=many)
    assert expected <= set(server.new_casts())
    assert server.recorder.changes == []


def test_what_could_not_be_cast_is_named_later(
    server: Server, following: Host, steps: list[Step]
) -> None:
    """An agent that asks then gets what came meanwhile, too."""
    server.recorder.failure = oslo_messaging.MessageDeliveryFailure("the bus is away")
    for step in steps:
        step()
    server.new_casts()
    server.recorder.failure = None
    server.caster.retry()
    casts = [what for host, what, _ in server.new_casts() if host == "host-a"]
    assert casts == ["security_groups_changed"]
    assert following.casts() == []
