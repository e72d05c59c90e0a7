"""What the agent has of the desired state, compared with the server's revisions."""

import dataclasses

from agent_flows.agent.knowledge import Knowledge
from agent_flows.rpc.revisions import Revisions
from agent_flows.spec import DesiredState, PortSpec, Refused, SecurityGroupSpec
from lab.model import group, new_id, numbered_id, port

ONE, TWO, THREE = (numbered_id(1, number) for number in (1, 2, 3))
WEB = group(id=numbered_id(2, 1), revision=7)


def state(*ports: PortSpec, groups: tuple[SecurityGroupSpec, ...] = (WEB,)) -> DesiredState:
    return DesiredState.of([*ports, *groups])


def a_port(port_id: str, revision: int = 1, **fields: object) -> PortSpec:
    return port(WEB, id=port_id, revision=revision, **fields)


def knowing(*ports: PortSpec) -> Knowledge:
    knowledge = Knowledge()
    knowledge.learn([each.id for each in ports], state(*ports))
    return knowledge


def test_equal_knowledge_has_an_equal_digest_and_nothing_to_ask() -> None:
    knowledge = knowing(a_port(ONE), a_port(TWO, 5))
    theirs = Revisions({ONE: 1, TWO: 5}, {WEB.id: 7})
    assert knowledge.digest() == theirs.digest()
    assert knowledge.differing(theirs, ()) == set()


def test_exactly_the_ports_that_differ_are_asked_about() -> None:
    knowledge = knowing(a_port(ONE), a_port(TWO))
    theirs = Revisions({ONE: 1, TWO: 2}, {WEB.id: 7})
    assert knowledge.differing(theirs, ()) == {TWO}
    assert knowledge.digest() != theirs.digest()


def test_ports_of_one_side_only_are_asked_about() -> None:
    knowledge = knowing(a_port(ONE), a_port(TWO))
    theirs = Revisions({ONE: 1, THREE: 1}, {WEB.id: 7})
    assert knowledge.differing(theirs, ()) == {TWO, THREE}


def test_a_port_that_is_not_in_the_answer_is_forgotten() -> None:
    knowledge = knowing(a_port(ONE), a_port(TWO))
    knowledge.learn([TWO], state(a_port(ONE)))
    assert knowledge.digest() == Revisions({ONE: 1}, {WEB.id: 7}).digest()


def test_a_group_that_changed_concerns_the_ports_that_are_in_it() -> None:
    knowledge = knowing(a_port(ONE), port(id=TWO, revision=1))
    theirs = Revisions({ONE: 1, TWO: 1}, {WEB.id: 8})
    assert knowledge.differing(theirs, ()) == {ONE}


def test_a_group_of_which_two_ports_have_learnt_different_revisions_differs() -> None:
    knowledge = knowing(a_port(ONE), a_port(TWO))
    newer = dataclasses.replace(WEB, revision=8)
    knowledge.learn([ONE], state(a_port(ONE), groups=(newer,)))
    theirs = Revisions({ONE: 1, TWO: 1}, {WEB.id: 8})
    assert knowledge.digest() != theirs.digest()
    assert knowledge.differing(theirs, ()) == {TWO}


def test_of_absent_ports_a_groups_revision_is_only_noted() -> None:
    knowledge = knowing(a_port(ONE))
    theirs = Revisions({ONE: 1}, {WEB.id: 8})
    assert knowledge.differing(theirs, {ONE}) == set()
    assert knowledge.digest() == theirs.digest()
    assert knowledge.differing(Revisions({ONE: 2}, {WEB.id: 8}), {ONE}) == {ONE}


def test_groups_of_ports_without_port_security_do_not_count() -> None:
    knowledge = knowing(a_port(ONE, port_security_enabled=False))
    assert knowledge.digest() == Revisions({ONE: 1}, {}).digest()


def test_a_group_that_was_missing_in_the_answer_is_asked_about() -> None:
    knowledge = Knowledge()
    knowledge.learn([ONE], state(a_port(ONE), groups=()))
    theirs = Revisions({ONE: 1}, {WEB.id: 7})
    assert knowledge.digest() != theirs.digest()
    assert knowledge.differing(theirs, ()) == {ONE}


def test_a_port_with_an_invalid_spec_hides_no_difference_of_others() -> None:
    """Its groups are not known: those of the server that no other port is in count as its own."""
    knowledge, other = knowing(a_port(ONE)), new_id()
    refused = DesiredState(refused={TWO: Refused("no", 4, "")})
    knowledge.learn([TWO], refused)
    theirs = Revisions({ONE: 1, TWO: 4}, {WEB.id: 7, other: 2})
    assert knowledge.differing(theirs, ()) == set()
    assert knowledge.digest() == theirs.digest()
    # It is asked for again and again, and nothing changes by that.
    knowledge.learn([TWO], refused)
    assert knowledge.digest() == theirs.digest()
    for newer in (
        Revisions({ONE: 1, TWO: 4}, {WEB.id: 8, other: 2}),
        Revisions({ONE: 2, TWO: 4}, {WEB.id: 7, other: 2}),
    ):
        assert knowledge.digest() != newer.digest()
        assert knowledge.differing(newer, ()) == {ONE}
    later = Revisions({ONE: 1, TWO: 4}, {WEB.id: 7, other: 3})
    assert knowledge.differing(later, ()) == set()
    assert knowledge.digest() == later.digest()
    assert knowledge.differing(Revisions({ONE: 1, TWO: 5}, {WEB.id: 7}), ()) == {TWO}


def test_a_port_whose_spec_is_valid_again_has_its_own_groups() -> None:
    knowledge = Knowledge()
    knowledge.learn([ONE], DesiredState(refused={ONE: Refused("no", 4, "")}))
    knowledge.differing(Revisions({ONE: 4}, {new_id(): 2}), ())
    knowledge.learn([ONE], state(a_port(ONE, 5)))
    assert knowledge.digest() == Revisions({ONE: 5}, {WEB.id: 7}).digest()


def test_an_invalid_group_has_its_revision() -> None:
    knowledge, refused = Knowledge(), Refused("no", 9, "")
    answer = dataclasses.replace(state(a_port(ONE), groups=()), refused={WEB.id: refused})
    knowledge.learn([ONE], answer)
    assert knowledge.digest() == Revisions({ONE: 1}, {WEB.id: 9}).digest()


def test_awaited_reports_change_the_servers_digest() -> None:
    theirs = Revisions({ONE: 1}, {WEB.id: 7}, (ONE,))
    assert knowing(a_port(ONE)).digest() != theirs.digest()


def test_nothing_is_known_at_the_start() -> None:
    assert Knowledge().digest() == Revisions({}, {}).digest()
    assert Knowledge().differing(Revisions({ONE: 1}, {new_id(): 1}), ()) == {ONE}
