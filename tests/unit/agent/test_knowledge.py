"""What the agent has of the desired state, what it asks for, and what it compares."""

import contextlib
import dataclasses
import threading
from collections.abc import Collection
from ipaddress import ip_network

import pytest

from agent_flows.agent.knowledge import Knowledge
from agent_flows.rpc.desired import GroupChange, Known, MembersChange, Update, whole
from agent_flows.rpc.revisions import Revisions
from agent_flows.spec import DesiredState, Member, PortSpec, Refused, SecurityGroupSpec
from agent_flows.validation import Invalid
from lab.model import group, ingress, new_id, numbered_id, port

ONE, TWO, THREE = (numbered_id(1, number) for number in (1, 2, 3))
WEB = group(id=numbered_id(2, 1), revision=7)


def state(*ports: PortSpec, groups: tuple[SecurityGroupSpec, ...] = (WEB,)) -> DesiredState:
    return DesiredState.of([*ports, *groups])


def a_port(port_id: str, revision: int = 1, **fields: object) -> PortSpec:
    return port(WEB, id=port_id, revision=revision, **fields)


def learn(knowledge: Knowledge, port_ids: Collection[str], answer: Update) -> frozenset[str]:
    return knowledge.ask(lambda _ids, _known: answer, port_ids)


def knowing(*ports: PortSpec) -> Knowledge:
    knowledge = Knowledge()
    learn(knowledge, [each.id for each in ports], whole(state(*ports)))
    return knowledge


def known(knowledge: Knowledge) -> Known:
    """What it tells the server that it has."""
    seen: list[Known] = []

    def note(_ids: Collection[str], has: Known) -> Update:
        seen.append(has)
        return Update()

    knowledge.ask(note, ())
    return seen[0]


def test_equal_knowledge_has_an_equal_digest_and_nothing_to_ask() -> None:
    knowledge = knowing(a_port(ONE), a_port(TWO, 5))
    theirs = Revisions({ONE: 1, TWO: 5}, {WEB.id: 7})
    assert knowledge.digest() == theirs.digest()
    assert knowledge.differing(theirs) == (set(), False)


def test_exactly_the_ports_that_differ_are_asked_about() -> None:
    knowledge = knowing(a_port(ONE), a_port(TWO))
    theirs = Revisions({ONE: 1, TWO: 2}, {WEB.id: 7})
    assert knowledge.differing(theirs) == ({TWO}, False)
    assert knowledge.digest() != theirs.digest()


def test_ports_of_one_side_only_are_asked_about() -> None:
    knowledge = knowing(a_port(ONE), a_port(TWO))
    theirs = Revisions({ONE: 1, THREE: 1}, {WEB.id: 7})
    assert knowledge.differing(theirs) == ({TWO, THREE}, False)


def test_a_port_that_is_not_in_the_answer_is_forgotten() -> None:
    knowledge = knowing(a_port(ONE), a_port(TWO))
    learn(knowledge, [TWO], Update())
    assert knowledge.digest() == Revisions({ONE: 1}, {WEB.id: 7}).digest()
    learn(knowledge, [ONE], Update())
    assert known(knowledge) == Known()


def test_a_group_that_changed_concerns_the_ports_that_are_in_it() -> None:
    knowledge = knowing(a_port(ONE), port(id=TWO, revision=1))
    assert knowledge.differing(Revisions({ONE: 1, TWO: 1}, {WEB.id: 8})) == (set(), True)
    assert learn(knowledge, (), Update(security_groups=[GroupChange(WEB.id, 8)])) == {WEB.id}
    assert knowledge.inside({WEB.id}) == {ONE}
    content = knowledge.state([ONE]).security_groups[WEB.id]
    assert (content.revision, content.rules) == (8, WEB.rules)
    assert learn(knowledge, (), Update()) == frozenset()


def test_members_that_joined_and_left_change_those_it_has() -> None:
    rules = ({"direction": "ingress", "remote_group_id": WEB.id},)
    web = group(id=WEB.id, revision=7, rules=rules)
    knowledge = Knowledge()
    first, second = (ip_network("10.0.0.1"), None), (ip_network("10.0.0.2"), None)
    learn(
        knowledge,
        [ONE],
        Update(
            ports=[a_port(ONE)],
            security_groups=[GroupChange(web.id, 7, rules=web.rules)],
            members=[MembersChange(web.id, 3, None, {TWO: (first,), THREE: (first,)})],
        ),
    )
    assert known(knowledge) == Known({web.id: 7}, {web.id: 3})
    change = MembersChange(web.id, 5, 3, {TWO: (), ONE: (second,)})
    learn(knowledge, (), Update(security_groups=[GroupChange(web.id, 9)], members=[change]))
    members = knowledge.state([ONE]).security_groups[web.id].members
    assert members == (Member(first[0]), Member(second[0])), "the third port has the address, too"
    learn(knowledge, (), Update(members=[MembersChange(web.id, 6, 5, {THREE: ()})]))
    assert knowledge.state([ONE]).security_groups[web.id].members == (Member(second[0]),)


@pytest.mark.parametrize(
    "misfit",
    [
        Update(members=[MembersChange(WEB.id, 5, 4, {})]),
        Update(security_groups=[GroupChange(new_id(), 5)]),
    ],
    ids=["members since another revision", "rules that it does not have"],
)
def test_after_an_answer_that_does_not_fit_everything_is_read(misfit: Update) -> None:
    knowledge = knowing(a_port(ONE))
    before = knowledge.state([ONE])
    with pytest.raises(Invalid):
        learn(knowledge, (), misfit)
    assert knowledge.state([ONE]) == before, "flows go on with what is known"
    assert known(knowledge) == Known({WEB.id: 0})
    assert known(knowledge).security_groups == {WEB.id: 7}


def test_a_group_may_be_known_while_an_answer_is_awaited() -> None:
    """The answer may be older than the change of the group that the server names meanwhile."""
    knowledge, during = Knowledge(), []

    def server(_ids: Collection[str], _known: Known) -> Update:
        during.append(knowledge.may_have([WEB.id]))
        return Update(ports=[a_port(ONE)], security_groups=[GroupChange(WEB.id, 7, rules=())])

    assert not knowledge.may_have([WEB.id])
    knowledge.ask(server, [ONE])
    assert during == [True]
    assert knowledge.may_have([WEB.id])
    assert not knowledge.may_have([new_id()])


def test_groups_of_ports_without_port_security_do_not_count() -> None:
    knowledge = knowing(a_port(ONE, port_security_enabled=False))
    assert knowledge.digest() == Revisions({ONE: 1}, {}).digest()


def test_a_group_that_was_missing_in_the_answer_is_asked_about() -> None:
    knowledge = Knowledge()
    learn(knowledge, [ONE], Update(ports=[a_port(ONE)]))
    theirs = Revisions({ONE: 1}, {WEB.id: 7})
    assert knowledge.digest() != theirs.digest()
    assert knowledge.differing(theirs) == (set(), True)
    assert known(knowledge) == Known({WEB.id: 0})


def test_a_port_with_an_invalid_spec_hides_no_difference_of_others() -> None:
    """Its groups are not known: those of the server that no other port is in count as its own."""
    knowledge, other = knowing(a_port(ONE)), new_id()
    refused = Update(refused={TWO: Refused("no", 4, "")})
    learn(knowledge, [TWO], refused)
    theirs = Revisions({ONE: 1, TWO: 4}, {WEB.id: 7, other: 2})
    assert knowledge.differing(theirs) == (set(), False)
    assert knowledge.digest() == theirs.digest()
    # It is asked for again and again, and nothing changes by that.
    learn(knowledge, [TWO], refused)
    assert knowledge.digest() == theirs.digest()
    newer = Revisions({ONE: 2, TWO: 4}, {WEB.id: 7, other: 2})
    assert knowledge.digest() != newer.digest()
    assert knowledge.differing(newer) == ({ONE}, False)
    later = Revisions({ONE: 1, TWO: 4}, {WEB.id: 7, other: 3})
    assert knowledge.differing(later) == (set(), False)
    assert knowledge.digest() == later.digest()
    assert knowledge.differing(Revisions({ONE: 1, TWO: 5}, {WEB.id: 7})) == ({TWO}, False)


def test_a_port_whose_spec_is_valid_again_has_its_own_groups() -> None:
    knowledge = Knowledge()
    learn(knowledge, [ONE], Update(refused={ONE: Refused("no", 4, "")}))
    knowledge.differing(Revisions({ONE: 4}, {new_id(): 2}))
    learn(knowledge, [ONE], whole(state(a_port(ONE, 5))))
    assert knowledge.digest() == Revisions({ONE: 5}, {WEB.id: 7}).digest()


def test_an_invalid_group_has_its_revision_and_is_asked_about_again() -> None:
    knowledge, refused = Knowledge(), Refused("no", 9, "")
    learn(knowledge, [ONE], Update(ports=[a_port(ONE)], refused={WEB.id: refused}))
    assert knowledge.digest() == Revisions({ONE: 1}, {WEB.id: 9}).digest()
    assert knowledge.state([ONE]).refused == {WEB.id: refused}
    assert known(knowledge) == Known({WEB.id: 0})


def test_awaited_reports_change_the_servers_digest() -> None:
    theirs = Revisions({ONE: 1}, {WEB.id: 7}, (ONE,))
    assert knowing(a_port(ONE)).digest() != theirs.digest()


def test_nothing_is_known_at_the_start() -> None:
    assert Knowledge().digest() == Revisions({}, {}).digest()
    assert Knowledge().differing(Revisions({ONE: 1}, {new_id(): 1})) == ({ONE}, False)


def test_an_older_server_is_asked_for_everything_each_time() -> None:
    knowledge = knowing(a_port(ONE))
    newer = dataclasses.replace(WEB, revision=8, rules=())
    assert learn(knowledge, [ONE], whole(state(a_port(ONE), groups=(newer,)))) == {WEB.id}
    assert knowledge.state([ONE]).security_groups[WEB.id].rules == ()
    assert not knowledge.by_host


FROM_WEB = group(ingress(remote_group_id=WEB.id), id=WEB.id, revision=7)
FROM_THREE = group(ingress(remote_group_id=THREE))
ENTRY = (ip_network("10.0.0.1"), None)


def follower() -> Knowledge:
    """Has port one in a group that refers to itself, at revision 7, with members at 3."""
    knowledge = Knowledge()
    learn(
        knowledge,
        [ONE],
        Update(
            ports=[a_port(ONE)],
            security_groups=[GroupChange(WEB.id, 7, rules=FROM_WEB.rules)],
            members=[MembersChange(WEB.id, 3, None, {})],
        ),
    )
    return knowledge


def joined(revision: int, port_id: str, *, since: int | None = None) -> Update:
    """Port ``port_id`` joined: the group's revision is this one, that of its members four less."""
    return Update(
        security_groups=[GroupChange(WEB.id, revision, since=since or revision - 1)],
        members=[MembersChange(WEB.id, revision - 4, revision - 5, {port_id: (ENTRY,)})],
    )


def test_a_cast_that_fits_is_learnt() -> None:
    knowledge = follower()
    assert knowledge.follow(joined(8, TWO)) == {WEB.id}
    content = knowledge.state([ONE]).security_groups[WEB.id]
    assert (content.revision, content.rules) == (8, FROM_WEB.rules)
    assert content.members == (Member(ENTRY[0]),)
    assert known(knowledge) == Known({WEB.id: 8}, {WEB.id: 4})
    assert knowledge.digest() == Revisions({ONE: 1}, {WEB.id: 8}).digest()


def test_a_cast_that_comes_twice_is_learnt_once() -> None:
    knowledge = follower()
    knowledge.follow(joined(8, TWO))
    assert knowledge.follow(joined(8, TWO)) == frozenset()
    assert known(knowledge) == Known({WEB.id: 8}, {WEB.id: 4})


@pytest.mark.parametrize(
    "misfit",
    [
        joined(9, TWO),
        joined(6, TWO),
        Update(
            security_groups=[GroupChange(WEB.id, 8, since=7)],
            members=[MembersChange(WEB.id, 5, 4)],
        ),
        Update(security_groups=[GroupChange(WEB.id, 8, rules=FROM_THREE.rules, since=7)]),
    ],
    ids=["one before was lost", "of before", "other members", "rules for a group it has not"],
)
def test_a_cast_that_does_not_fit_changes_nothing(misfit: Update) -> None:
    knowledge = follower()
    before = knowledge.state([ONE]), knowledge.digest()
    with pytest.raises(Invalid):
        knowledge.follow(misfit)
    assert (knowledge.state([ONE]), knowledge.digest()) == before
    assert known(knowledge) == Known({WEB.id: 7}, {WEB.id: 3}), "it asks for what changed since"


def test_casts_that_crossed_are_not_learnt_in_the_wrong_order() -> None:
    knowledge = follower()
    for change in (joined(9, THREE), joined(8, TWO), joined(9, THREE)):
        with contextlib.suppress(Invalid):
            knowledge.follow(change)
    members = MembersChange(WEB.id, 5, 3, {TWO: (ENTRY,), THREE: (ENTRY,)})
    assert known(knowledge) == Known({WEB.id: 9}, {WEB.id: 5})
    expected = follower()
    learn(expected, (), Update(security_groups=[GroupChange(WEB.id, 9)], members=[members]))
    assert knowledge.state([ONE]) == expected.state([ONE])


def test_a_cast_about_groups_of_no_port_here_changes_nothing() -> None:
    knowledge = follower()
    theirs = Update(
        security_groups=[GroupChange(new_id(), 8, rules=(), since=7)],
        members=[MembersChange(WEB.id, 4, 3, {TWO: (ENTRY,)})],
    )
    assert knowledge.follow(theirs) == frozenset()
    assert known(knowledge) == Known({WEB.id: 7}, {WEB.id: 3})


def test_a_cast_waits_for_an_answer_that_may_be_older() -> None:
    knowledge = Knowledge()
    followed = threading.Thread(target=lambda: knowledge.follow(joined(8, TWO)))

    def answer(_ids: Collection[str], _known: Known) -> Update:
        followed.start()
        return Update(
            ports=[a_port(ONE)],
            security_groups=[GroupChange(WEB.id, 7, rules=FROM_WEB.rules)],
            members=[MembersChange(WEB.id, 3, None, {})],
        )

    knowledge.ask(answer, [ONE])
    followed.join()
    assert known(knowledge) == Known({WEB.id: 8}, {WEB.id: 4})


def test_what_is_of_an_older_server_is_followed_by_no_cast() -> None:
    """Its revisions count something else."""
    knowledge = Knowledge()
    learn(knowledge, [ONE], whole(state(a_port(ONE), groups=(FROM_WEB,))))
    with pytest.raises(Invalid):
        knowledge.follow(Update(security_groups=[GroupChange(WEB.id, 8, since=7)]))
    with pytest.raises(Invalid):
        learn(knowledge, (), Update(members=[MembersChange(WEB.id, 8, 7, {TWO: (ENTRY,)})]))
