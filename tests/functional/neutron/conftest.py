"""One dummy switch for all of these tests, for Neutron has one connection to OVSDB in a process;
and a fresh bridge for each."""

from collections.abc import Iterator
from pathlib import Path

import oslo_messaging
import pytest
from neutron.agent.common import ovs_lib
from neutron_lib import rpc
from neutron_lib.callbacks import registry
from oslo_config import cfg

from lab.switch import Switch
from tests.functional.neutron.cloud import WEB, Cloud
from tests.functional.neutron.configuration import configure
from tests.functional.secgroups.host import BRIDGE


@pytest.fixture(scope="package")
def dummy_switch() -> Iterator[Switch]:
    with Switch(dummy=True) as running:
        configure(running.database, str(running.run_dir))
        oslo_messaging.TransportURL.parse(cfg.CONF, "fake://")  # registers the option
        cfg.CONF.set_override("transport_url", "fake://")
        rpc.init(cfg.CONF)
        try:
            yield running
        finally:
            rpc.cleanup()
            ovs_lib.BaseOVS().ovsdb.ovsdb_connection.stop(10)
            cfg.CONF.clear()


@pytest.fixture
def cloud(dummy_switch: Switch, ofctl_calls: Path) -> Iterator[Cloud]:
    dummy_switch.add_bridge(BRIDGE)
    dummy_switch.appctl("dpctl/ct-disable-tcp-seq-chk")
    cloud = Cloud(dummy_switch, ofctl_calls)
    try:
        yield cloud
    finally:
        cloud.stop_agent()
        registry.clear()
        dummy_switch.vsctl("del-br", BRIDGE)


@pytest.fixture
def group(cloud: Cloud) -> str:
    """A group that lets everything out and the web in."""
    return cloud.open_group(WEB)
