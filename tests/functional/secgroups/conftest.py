"""One dummy switch for all of these tests, and a fresh bridge for each."""

from collections.abc import Iterator

import pytest

from agent_flows.openflow.pipeline import OWN_PIPELINE, Pipeline
from lab.switch import Switch
from tests.functional.secgroups.host import BRIDGE, Host


@pytest.fixture(scope="package")
def dummy_switch() -> Iterator[Switch]:
    with Switch(dummy=True) as running:
        yield running


@pytest.fixture
def pipeline() -> Pipeline:
    """That of our own bridge, unless a test is parametrized by others."""
    return OWN_PIPELINE


@pytest.fixture
def host(dummy_switch: Switch, pipeline: Pipeline) -> Iterator[Host]:
    dummy_switch.add_bridge(BRIDGE)
    # Packets made from the datapath's notation all have sequence number 0.
    dummy_switch.appctl("dpctl/ct-disable-tcp-seq-chk")
    try:
        yield Host(dummy_switch, pipeline=pipeline)
    finally:
        # The last bridge takes the datapath and its connections along.
        dummy_switch.vsctl("del-br", BRIDGE)
