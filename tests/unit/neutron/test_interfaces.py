"""Where ports are, or their errors, read with the agent's bridge object."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from ovsdbapp.backend.ovs_idl.idlutils import RowNotFound
from ovsdbapp.exceptions import TimeoutException

from agent_flows.neutron import interfaces
from agent_flows.neutron.interfaces import Located, locate
from agent_flows.spec import NetworkType

ROW = uuid.UUID(int=7)
PORT, NETWORK = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))
BINDING = {
    "tag": "3",
    "net_uuid": NETWORK,
    "network_type": "vxlan",
    "physical_network": "None",
    "segmentation_id": "70000",
}


class Bridge:
    """The part of Neutron's OVSBridge that is used; counts the reads."""

    br_name = "br-int"

    def __init__(self, ofport: object = 5, **binding: str) -> None:
        self._ofport, self._binding = ofport, binding
        self.reads = 0

    def get_port_name_list(self) -> Sequence[str]:
        return ["tap1", *(f"other{number}" for number in range(250))]

    def get_ports_attributes(
        self, table: str, columns: Sequence[str], ports: Sequence[str], if_exists: bool
    ) -> Sequence[Mapping[str, Any]]:
        self.reads += 1
        assert if_exists
        assert len(ports) <= 20
        if table == "Port":
            return [{"name": name, "other_config": self._binding, "_uuid": ROW} for name in ports]
        own = {"iface-id": PORT, "attached-mac": "fa:16:3e:00:00:01"}
        return [
            {"name": name, "ofport": self._ofport, "external_ids": own if name == "tap1" else {}}
            for name in ports
        ]


def located(bridge: Bridge, *port_ids: str) -> Located:
    return locate(bridge, port_ids or (PORT,))


def test_interfaces_are_read_twenty_at_a_time_however_many_ports_are_asked_for() -> None:
    bridge = Bridge(**BINDING)
    found = located(bridge, PORT, *(str(uuid.UUID(int=number)) for number in range(10, 30)))
    assert bridge.reads == 14
    assert len(found.errors) == 20
    assert found.interfaces[PORT].ofport == 5


def test_an_interface_is_on_the_network_that_the_agent_bound_it_to() -> None:
    interface = located(Bridge(**BINDING)).interfaces[PORT]
    assert interface.vlan == 3
    assert interface.network.network_type is NetworkType.VXLAN
    assert (interface.network.id, interface.network.segmentation_id) == (NETWORK, 70000)


@pytest.mark.parametrize(
    ("bridge", "error"),
    [
        (Bridge(-1, **BINDING), "NoOfport"),
        (Bridge([], **BINDING), "NoOfport"),
        (Bridge(), "NoTag"),
        (Bridge(**BINDING | {"tag": "4095"}), "NoTag"),
        (Bridge(**BINDING | {"tag": "three"}), "NoTag"),
        (Bridge(**BINDING | {"network_type": "string and cans"}), "InvalidSpec"),
        (Bridge(**BINDING | {"segmentation_id": "none"}), "InvalidSpec"),
    ],
)
def test_port_that_cannot_be_wired_has_an_error(bridge: Bridge, error: str) -> None:
    found = located(bridge)
    assert found.errors[PORT].type == error
    assert not found.interfaces


def test_port_that_cannot_be_wired_has_its_ofport() -> None:
    assert located(Bridge()).ofports == {PORT: 5}


def test_missing_bridge_is_the_error_of_every_port() -> None:
    class Missing(Bridge):
        def get_port_name_list(self) -> Sequence[str]:
            raise RowNotFound(table="Bridge", col="name", match=self.br_name)

    error = located(Missing()).errors[PORT]
    assert (error.type, error.message) == ("BridgeNotFound", "bridge br-int does not exist")


def test_silent_ovsdb_is_the_error_of_every_port() -> None:
    class Silent(Bridge):
        def get_port_name_list(self) -> Sequence[str]:
            raise TimeoutException(timeout=10, cause="no answer", commands=[])

    other = str(uuid.UUID(int=3))
    errors = located(Silent(), PORT, other).errors
    assert {error.type for error in errors.values()} == {"OvsdbError"}
    assert set(errors) == {PORT, other}
    with pytest.raises(interfaces.TaskFailed):
        interfaces.ofports(Silent())
