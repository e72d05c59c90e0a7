"""What a port needs of the bridge, and which difference concerns it; the switch is a list here."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest

from agent_flows.openflow import cookie, dump
from agent_flows.openflow.attachment import Attachment
from agent_flows.openflow.cookie import Kind
from agent_flows.openflow.dump import Differences, FlowEntry
from agent_flows.openflow.pipeline import OWN_PIPELINE, Table
from agent_flows.secgroups.conjunction import Remote, RemoteKind
from agent_flows.secgroups.difference import Line
from agent_flows.spec import DesiredState
from agent_flows.verification import comparison
from agent_flows.verification.comparison import CannotCompile, Expected, Subject
from lab.model import address_group, egress_to_anywhere, group, ingress, port

OFPORT, VLAN = 3, 7
# Equal addresses: only the port's own flows tell one from the other.
OFFICE, BRANCH = address_group("198.51.100.0/24"), address_group("198.51.100.0/24")
RULES = group(
    ingress(protocol="tcp", port=22, remote_address_group_id=OFFICE.id),
    ingress(protocol="tcp", port=80, remote_address_group_id=BRANCH.id),
    ingress(protocol="tcp", port=443, remote_address_group_id=BRANCH.id),
    *egress_to_anywhere(),
)
NUMBERS = {
    Remote(RemoteKind.ADDRESS_GROUP, OFFICE.id): 12,
    Remote(RemoteKind.ADDRESS_GROUP, BRANCH.id): 11,
}


def subject(installed: Iterable[FlowEntry] = ()) -> Subject:
    made = port(RULES, fixed_ips=["10.0.0.11"])
    desired = DesiredState.of([made, RULES, OFFICE, BRANCH])
    attachment = Attachment(made.id, OFPORT, VLAN)
    return Subject(made, desired, attachment, None, OWN_PIPELINE, list(installed))


def switch(numbers: Mapping[Remote, int] = NUMBERS, generation: int = 1) -> list[FlowEntry]:
    """What an agent with these numbers has installed, in a bundle of this generation."""
    found = map(dump.read, comparison.expected(subject(), numbers).lines)
    return [
        entry._replace(cookie=cookie.port(OFPORT, generation))
        if cookie.kind(entry.cookie) == Kind.PORT
        else entry
        for entry in found
    ]


def difference(installed: Iterable[FlowEntry], wanted: Expected) -> Differences:
    """As ``ovs-ofctl diff-flows``."""
    have, need = set(installed), set(map(dump.read, wanted.lines))
    return Differences(sorted(have - need), sorted(need - have))


def compared(installed: list[FlowEntry]) -> list[Line]:
    """What is wrong for the port."""
    looked_at = subject(installed)
    wanted = comparison.expected(looked_at)
    numbers = comparison.numbers(wanted, difference(installed, wanted))
    wanted = comparison.expected(looked_at, numbers)
    return comparison.concerning(looked_at, wanted, difference(installed, wanted), frozenset())


@pytest.mark.parametrize("generation", [1, 4711])
def test_what_an_agent_installed_is_right_whatever_numbers_it_took(generation: int) -> None:
    assert compared(switch(generation=generation)) == []


def test_numbers_are_those_of_the_flows_that_agree_most() -> None:
    installed = [entry for entry in switch() if ",tp_dst=443" not in entry.match]
    looked_at = subject(installed)
    wanted = comparison.expected(looked_at)
    assert comparison.numbers(wanted, difference(installed, wanted)) == NUMBERS


def test_a_lost_flow_of_a_conjunction_is_all_that_is_missing() -> None:
    gone = {entry for entry in switch() if "tp_dst=443" in entry.match}
    ((what, entry),) = compared([entry for entry in switch() if entry not in gone])
    assert (what, entry.key) == ("missing", gone.pop().key)


def test_an_address_may_belong_to_groups_of_other_ports_too() -> None:
    installed = [
        entry._replace(actions=f"{entry.actions},conjunction(40,1/2)", cookie=entry.cookie ^ 1)
        if cookie.kind(entry.cookie) == Kind.MEMBER
        else entry
        for entry in switch()
    ]
    assert compared(installed) == []


def test_an_address_that_lost_one_of_the_ports_groups_is_wrong() -> None:
    installed = [
        entry._replace(actions="conjunction(11,1/2)")
        if cookie.kind(entry.cookie) == Kind.MEMBER
        else entry
        for entry in switch()
    ]
    assert [what for what, _ in compared(installed)] == ["changed, should be", "changed, is"]


def test_an_address_that_belongs_to_no_group_of_the_port_is_wrong_only_with_its_numbers() -> None:
    member = next(entry for entry in switch() if cookie.kind(entry.cookie) == Kind.MEMBER)
    foreign = member._replace(match=member.match.replace("198.51.100.0/24", "10.9.9.9"))
    others = foreign._replace(actions="conjunction(40,1/2)")
    assert compared([*switch(), others]) == []
    assert compared([*switch(), foreign]) == [("not compiled", foreign)]


def test_flows_of_other_ports_and_networks_do_not_concern_it() -> None:
    theirs = [
        entry._replace(
            cookie=cookie.port(9, 1), match=entry.match.replace(f"reg5={OFPORT}", "reg5=9")
        )
        for entry in switch()
        if entry.table == Table.RULES_INGRESS and f"reg5={OFPORT}" in entry.match
    ]
    assert theirs
    network = FlowEntry(cookie.network(VLAN + 1), 94, 100, f"reg6={VLAN + 1}", "output:1")
    assert compared([*switch(), *theirs, network]) == []


def test_a_flow_that_delivers_anything_else_to_the_port_is_wrong() -> None:
    extra = FlowEntry(
        cookie.content(Kind.DELIVERY, "another"), 73, 100, f"reg6={VLAN},dl_dst=0e:00:00:00:00:09",
        f"load:{OFPORT}->NXM_NX_REG5[],resubmit(,81)",
    )  # fmt: skip
    assert compared([*switch(), extra]) == [("not compiled", extra)]


def test_a_port_that_cannot_be_compiled_names_why() -> None:
    whole = subject()
    lacking = replace(whole, desired=replace(whole.desired, address_groups={}))
    with pytest.raises(CannotCompile, match="address group"):
        comparison.expected(lacking)
