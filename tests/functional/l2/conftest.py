"""The l2 parts on a real switch, without an agent around them."""

from collections.abc import Iterator

import pytest

from agent_flows.agent.flows import Switch
from agent_flows.l2.bindings import Bindings
from agent_flows.l2.bridges import Bridges
from agent_flows.l2.networks import Networks
from agent_flows.l2.ovsdb import Ovsdb
from agent_flows.l2.vlans import VlanRecords
from agent_flows.openflow.ofctl import Ofctl
from agent_flows.secgroups.firewall import Firewall
from lab.switch import Switch as LabSwitch


@pytest.fixture
def ovsdb(switch: LabSwitch) -> Iterator[Ovsdb]:
    connection = Ovsdb(switch.database, timeout=5)
    connection.start()
    yield connection
    connection.stop()


@pytest.fixture
def bridges(ovsdb: Ovsdb) -> Bridges:
    """br-int, and br-ex for physnet1."""
    found = Bridges(ovsdb, "br-int", "netdev", {"physnet1": "br-ex"})
    found.ensure_integration()
    return found


@pytest.fixture
def wiring(switch: LabSwitch, ovsdb: Ovsdb, bridges: Bridges) -> Switch:
    """What the flows act on."""

    def ofctl(bridge: str) -> Ofctl:
        return Ofctl(str(switch.run_dir), bridge, timeout=10)

    firewall = Firewall(ofctl("br-int"))
    firewall.start()
    networks = Networks(VlanRecords(ovsdb, "br-int"), bridges, ofctl)
    return Switch("br-int", ovsdb, networks, Bindings(ovsdb), firewall, ofctl("br-int"))
