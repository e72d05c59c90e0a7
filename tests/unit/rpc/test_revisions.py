"""The digest of a host's desired state."""

import re

from agent_flows.rpc.revisions import Revisions, digest
from lab.model import numbered_id

ONE, TWO, GROUP = numbered_id(1, 1), numbered_id(1, 2), numbered_id(2, 1)


def test_order_and_repetition_do_not_matter() -> None:
    lines = [("port", ONE, 3), ("security_group", GROUP, 1)]
    assert digest(lines) == digest([*reversed(lines), lines[0]])
    assert re.fullmatch("[0-9a-f]{32}", digest(lines))


def test_everything_that_may_differ_changes_the_digest() -> None:
    desired = [
        Revisions({}, {}),
        Revisions({ONE: 1}, {}),
        Revisions({ONE: 2}, {}),
        Revisions({TWO: 1}, {}),
        Revisions({ONE: 1, TWO: 1}, {}),
        Revisions({ONE: 1}, {GROUP: 1}),
        Revisions({ONE: 1}, {GROUP: 2}),
        Revisions({ONE: 1}, {ONE: 1}),
        Revisions({ONE: 1}, {}, (ONE,)),
    ]
    assert len({each.digest() for each in desired}) == len(desired)


def test_the_digest_is_the_same_in_every_release() -> None:
    # Agents and servers of different releases compare it.
    assert Revisions({ONE: 3}, {GROUP: 4}).digest() == digest(
        [("port", ONE, 3), ("security_group", GROUP, 4)]
    )
    assert digest([("port", "a", 1)]) == "42127dd8d611b0988baf5ad4a8339cff"


def test_a_host_may_have_any_number_of_ports() -> None:
    ports = {numbered_id(1, number): 1 for number in range(20_000)}
    assert Revisions(ports, {}, tuple(ports)).digest() != Revisions(ports, {}).digest()
