"""The wiring of proven ports is changed by another program: found, reported and repaired."""

import pytest

from agent_flows.report import FlowName
from tests.functional.drift.repairs import repaired, right


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["set", "Port", "{tap}", "tag=999"], "the tag of {tap} is 999 instead of 1"),
        (["clear", "Port", "{tap}", "tag"], "the tag of {tap} is not set instead of 1"),
        (
            ["remove", "Port", "{tap}", "other_config", "net_uuid"],
            "other_config of {tap} was changed: net_uuid",
        ),
        (
            ["set", "Interface", "{tap}", "ofport_request=77"],
            "the ofport of {tap} is 77 instead of {ofport}",
        ),
    ],
    ids=["tag changed", "tag removed", "other_config", "ofport"],
)
def test_a_changed_row_of_a_port_is_reported_and_repaired(host, pair, words, expected):
    one, two = pair
    values = {"tap": two.tap, "ofport": host.switch.ofport(two.tap)}
    host.switch.vsctl(*(word.format(**values) for word in words))
    assert repaired(host, two).message == expected.format(**values)
    assert host.tag(two.tap) == 1
    right(one, two)
    assert not host.server.of(one.port_id, FlowName.AUDIT)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["down"], "link {tap} is down"),
        (["mtu", "1400"], "link {tap} has MTU 1400 instead of 1500"),
    ],
    ids=" ".join,
)
def test_a_changed_link_is_reported_and_repaired(host, pair, words, expected):
    one, two = pair
    host.switch.namespace.ip("link", "set", two.tap, *words)
    assert repaired(host, two).message == expected.format(tap=two.tap)
    link = host.switch.namespace.ip("link", "show", two.tap)
    assert "UP" in link
    assert "mtu 1500" in link
    right(one, two)


def test_several_changes_of_a_port_are_one_report(host, pair):
    one, two = pair
    host.switch.vsctl("set", "Port", two.tap, "tag=999", "other_config:tag=7")
    assert repaired(host, two).message == (
        f"the tag of {two.tap} is 999 instead of 1; other_config of {two.tap} was changed: tag"
    )
    right(one, two)
