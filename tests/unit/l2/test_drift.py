"""What differs between a port as its flow left it and as it is now."""

import dataclasses
import uuid

import pytest

from agent_flows.errors import ErrorType
from agent_flows.l2.bindings import Binding
from agent_flows.l2.drift import Seen, of_port
from agent_flows.l2.interfaces import Interface
from agent_flows.report import Step, TaskError
from agent_flows.spec import NetworkSpec, NetworkType

APPLIED = Interface(
    "one", "tap1", "", 7, row=uuid.UUID(int=1), port_row=uuid.UUID(int=2)
)  # fmt: skip
BINDING = Binding("tap1", 2, NetworkSpec(str(uuid.UUID(int=9)), NetworkType.LOCAL))
RIGHT = Seen(APPLIED, 2, {**BINDING.columns["other_config"], "written-by": "another"})


def now(**changes):
    """The interface as its flow left it, but for the changes."""
    return dataclasses.replace(RIGHT, interface=dataclasses.replace(APPLIED, **changes))


def test_a_port_as_its_flow_left_it_has_no_drift():
    assert of_port(APPLIED, BINDING, RIGHT) is None


@pytest.mark.parametrize(
    ("seen", "message"),
    [
        (dataclasses.replace(RIGHT, tag=999), "the tag of tap1 is 999 instead of 2"),
        (dataclasses.replace(RIGHT, tag=None), "the tag of tap1 is not set instead of 2"),
        (now(ofport=8), "the ofport of tap1 is 8 instead of 7"),
        (now(ofport=None), "Open vSwitch has given interface tap1 no ofport"),
        (
            now(ofport=None, error="no such device"),
            "Open vSwitch cannot use interface tap1: no such device",
        ),
        (
            dataclasses.replace(RIGHT, link=TaskError(ErrorType.LINK_DOWN, "link tap1 is down")),
            "link tap1 is down",
        ),
        (
            dataclasses.replace(now(ofport=8), tag=4095),
            "the ofport of tap1 is 8 instead of 7; the tag of tap1 is 4095 instead of 2",
        ),
    ],
)
def test_what_differs_is_in_the_message(seen, message):
    found = of_port(APPLIED, BINDING, seen)
    assert found is not None
    assert (found.step, found.error.type) == (Step.L2, ErrorType.DRIFT)
    assert found.error.message == message


def test_keys_of_other_config_that_differ_are_named_with_their_values_in_the_detail():
    config = {key: value for key, value in RIGHT.other_config.items() if key != "net_uuid"}
    found = of_port(
        APPLIED, BINDING, dataclasses.replace(RIGHT, other_config={**config, "tag": "7"})
    )
    assert found is not None
    assert found.error.message == "other_config of tap1 was changed: net_uuid, tag"
    assert "tag: 7 instead of 2" in found.error.detail


@pytest.mark.parametrize(
    "seen",
    [
        None,
        now(row=uuid.UUID(int=5), ofport=8),
        now(port_row=uuid.UUID(int=5), ofport=8),
        now(ofport=None, error="several", claimants=("tap1", "tap2")),
    ],
    ids=["unplugged", "another row", "another row of the port", "claimed twice"],
)
def test_a_port_that_was_plugged_again_has_no_drift(seen):
    assert of_port(APPLIED, BINDING, seen) is None
