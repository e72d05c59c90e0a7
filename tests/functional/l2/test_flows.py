"""The flows with their reverts, run as the agent runs them."""

import dataclasses
import uuid

import pytest
from taskflow.patterns import linear_flow

from agent_flows.agent import flows
from agent_flows.engine.runner import Runner, Work
from agent_flows.engine.task import FlowTask, PortErrors
from agent_flows.l2 import interfaces
from agent_flows.openflow import cookie
from agent_flows.report import FlowName, Step, TaskError, TaskState
from agent_flows.spec import DesiredState
from lab import model
from lab.process import wait_until


class Trouble(FlowTask):
    """Fails some ports once all but the commit is done."""

    name_ = "trouble"
    step = Step.L2

    def __init__(self, ports):
        super().__init__()
        self.ports = ports

    def execute(self, port_ids):
        if bad := [port for port in port_ids if port in self.ports]:
            raise PortErrors({port: TaskError("Trouble", "as the test wants it") for port in bad})


@pytest.fixture
def stage(switch, wiring):
    return Stage(switch, wiring)


class Stage:
    def __init__(self, switch, wiring):
        self.switch, self.wiring = switch, wiring
        self.group = model.group()
        self.desired = DesiredState(security_groups={self.group.id: self.group})
        self.names = {}
        self.runner = Runner("host-1")

    def plug(self, network):
        """An internal port on the bridge, as a spec knows it."""
        number = len(self.desired.ports) + 1
        name, port_id = f"p{number}", str(uuid.uuid4())
        self.switch.vsctl(
            "add-port", "br-int", name, "--", "set", "Interface", name, "type=internal",
            f"external_ids:iface-id={port_id}",
        )  # fmt: skip
        self.switch.namespace.ip("link", "set", name, "up", "mtu", str(network.mtu))
        mac = f"fa:16:3e:00:00:{number:02x}"
        spec = model.port(self.group, id=port_id, network=network, mac_address=mac)
        self.desired = dataclasses.replace(
            self.desired, ports={**self.desired.ports, port_id: spec}
        )
        self.names[port_id] = name
        return port_id

    def run(self, flow, compose, *ports):
        reports = []
        batch = [Work(port, 1, {}, 1) for port in ports]
        found = interfaces.find(self.wiring.ovsdb, self.wiring.bridge, ports)
        present = found | interfaces.missing(ports, found)
        inputs = {"desired": self.desired, "present": present}
        with self.switch.namespace.entered():
            self.runner.run(flow, compose, batch, inputs, reports.extend)
        return {report.resource_id: report for report in reports}

    def wire(self, *ports, trouble=()):
        return self.run(FlowName.WIRE, lambda: self.wiring_with(Trouble(trouble), 1), *ports)

    def wiring_with(self, task, before_last):
        """The wiring with a task before its last ones."""
        tasks = list(flows.wire(self.wiring))
        tasks.insert(len(tasks) - before_last, task)
        return linear_flow.Flow("wire").add(*tasks)

    def unwire(self, *ports):
        return self.run(FlowName.UNWIRE, lambda: flows.unwire(self.wiring), *ports)

    def tag(self, port):
        return int(self.switch.vsctl("get", "Port", self.names[port], "tag").strip("[]") or 0)

    def is_open(self, port):
        ofport = self.switch.ofport(self.names[port])
        return any(
            f"cookie={cookie.port(ofport, generation):#x}" in line
            for generation in range(1, 9)
            for line in self.switch.flows("br-int")
        )


def test_wired_port_is_tagged_with_the_vlan_of_its_network(stage):
    net = model.network()
    one, two, other = stage.plug(net), stage.plug(net), stage.plug(model.network())
    reports = stage.wire(one, two, other)
    assert [report.failed for report in reports.values()] == [None, None, None]
    assert stage.tag(one) == stage.tag(two) != stage.tag(other)
    assert stage.switch.vsctl("get", "Port", stage.names[one], "other_config:net_uuid").strip(
        '"'
    ) == (net.id)


def test_new_port_that_fails_at_the_end_stays_closed_on_the_dead_vlan(stage):
    bad = stage.plug(model.network())
    report = stage.wire(bad, trouble=[bad])[bad]
    assert report.failed.name == "trouble"
    assert report.tasks[-3].state is TaskState.REVERTED
    assert stage.tag(bad) == 4095
    assert not stage.is_open(bad)


def test_wired_port_that_fails_again_keeps_what_was_verified(stage):
    port = stage.plug(model.network())
    assert stage.wire(port)[port].failed is None
    vlan = stage.tag(port)
    assert stage.wire(port, trouble=[port])[port].failed is not None
    assert stage.tag(port) == vlan
    assert stage.is_open(port)


def test_good_port_is_wired_beside_a_bad_one(stage):
    net = model.network()
    good, bad = stage.plug(net), stage.plug(net)
    reports = stage.wire(good, bad, trouble=[bad])
    assert reports[good].failed is None
    assert stage.is_open(good)
    assert not stage.is_open(bad)
    assert (stage.tag(good) < 4095, stage.tag(bad)) == (True, 4095)


def test_unwiring_the_last_port_of_a_network_releases_its_vlan(stage):
    net = model.network()
    one, two = stage.plug(net), stage.plug(net)
    stage.wire(one, two)
    stage.unwire(one)
    assert stage.wiring.networks.vlans() == {net.id: stage.tag(two)}
    assert (stage.tag(one), stage.is_open(one)) == (4095, False)
    stage.unwire(two)
    assert stage.wiring.networks.vlans() == {}


def test_unwiring_an_unknown_port_succeeds(stage):
    gone = stage.plug(model.network())
    stage.wire(gone)
    stage.switch.vsctl("del-port", stage.names[gone])
    never = str(uuid.uuid4())
    assert {r.failed for r in stage.unwire(gone, never).values()} == {None}


def test_changed_tag_fails_the_verification(stage):
    port = stage.plug(model.network())
    stage.wire(port)

    class Meddle(FlowTask):
        name_ = "meddle"
        step = Step.L2

        def execute(self):
            stage.switch.vsctl("set", "Port", stage.names[port], "tag=77")
            wait_until(
                lambda: stage.wiring.bindings.tags([stage.names[port]]) == {"p1": 77}, 5, "tag"
            )

    report = stage.run(FlowName.WIRE, lambda: stage.wiring_with(Meddle(), 2), port)[port]
    assert report.failed.name == "verify-wiring"
    assert report.failed.error.type == "WrongTag"
    assert "77" in report.failed.error.message


def test_local_vlan_is_independent_of_the_segment(stage):
    stage.switch.add_bridge("br-ex")
    net = model.network("vlan", segmentation_id=1)
    first = stage.plug(model.network())
    port = stage.plug(net)
    assert stage.wire(first)[first].failed is None
    assert stage.wire(port)[port].failed is None
    assert stage.tag(port) == 2
    assert any("dl_vlan=2" in line and "4097" in line for line in stage.switch.flows("br-ex"))
