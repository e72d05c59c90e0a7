"""Somebody else changes, deletes or adds flows on the bridge: a resync puts everything right."""

import contextlib
import dataclasses
import itertools
import logging
import re
from collections.abc import Callable, Iterator

import pytest

from agent_flows.openflow import cookie
from agent_flows.report import FlowName
from agent_flows.spec import SecurityGroupSpec
from lab import frames
from lab.model import egress_to_anywhere, group, network, new_id, rule
from lab.vm import Vm
from tests.functional.agent.host import Host

BRIDGE = "br-int"
_SEQUENCE = itertools.count(1)
_COOKIE = re.compile(r"cookie=0x[0-9a-f]+, ")


def web() -> SecurityGroupSpec:
    """Everything out; in tcp 80, and tcp 8080 for members of the group."""
    made = new_id()
    return group(
        *egress_to_anywhere(),
        rule(protocol="tcp", port=80),
        rule(protocol="tcp", port=8080, remote_group_id=made),
        id=made,
        members=["10.0.0.0/24"],
    )


class Scene:
    """Two wired VMs, and somebody with ovs-ofctl in his hands."""

    def __init__(self, host: Host, one: Vm, two: Vm) -> None:
        self.host, self.one, self.two = host, one, two
        self.sender, self.receiver = one.wire(), two.wire()
        self.before = self.flows()

    def close(self) -> None:
        self.sender.close()
        self.receiver.close()

    def flows(self) -> list[str]:
        return sorted(self.host.switch.flows(BRIDGE))

    def plain_flows(self) -> list[str]:
        """Without cookies: a port that was written again has others."""
        return sorted(_COOKIE.sub("", each) for each in self.flows())

    @property
    def ofport(self) -> int:
        return self.host.switch.ofport(self.two.tap)

    def ofctl(self, *args: str) -> None:
        self.host.switch.ofctl(args[0], self.host.switch.management(BRIDGE), *args[1:])
        self.host.switch.appctl("revalidator/purge")

    def passes(self, port: int) -> bool:
        """Whether the first segment of a new connection arrives.

        What has not arrived when an ARP request sent after it has was dropped.
        """
        number = next(_SEQUENCE)
        macs, ips = (self.one.mac, self.two.mac), (self.one.ip, self.two.ip)
        segment = frames.tcp(macs, ips, (20000 + number, port), frames.SYN, (number, 0))
        self.sender.send(segment)
        asked = frames.arp_request(self.one.mac, (self.one.mac, self.one.ip), self.two.ip)
        self.sender.send(asked + b"mark %d." % number)
        self.receiver.wait_for(b"mark %d." % number, 1)
        return self.receiver.arrived(segment) > 0

    def resync(self, *vms: Vm) -> None:
        """Of these ports, or of the host; the first report of each must be a success."""
        reports = self.host.server.of
        before = {vm: len(reports(vm.port_id)) for vm in vms or (self.one, self.two)}
        self.host.casts.resync("host-1", [vm.port_id for vm in vms] or None)
        self.host.server.wait_for(
            lambda: all(len(reports(vm.port_id)) > number for vm, number in before.items())
        )
        first = [reports(vm.port_id)[number] for vm, number in before.items()]
        assert {(each.flow, each.failed) for each in first} == {(FlowName.RESYNC, None)}
        self.host.switch.appctl("revalidator/purge")


@pytest.fixture
def scene(
    host: Host, make_vm: Callable[..., Vm], settled: Callable[..., list[Vm]]
) -> Iterator[Scene]:
    one, two = settled(make_vm("one"), make_vm("two"), groups=[web()])
    host.ready()
    with contextlib.closing(Scene(host, one, two)) as scene:
        assert (scene.passes(80), scene.passes(81), scene.passes(8080)) == (True, False, True)
        yield scene


def _rule(scene: Scene) -> str:
    return f"table=82,tcp,reg5={scene.ofport},tp_dst=80"


KEEPING_THE_COOKIE = {
    "a rule that drops": (lambda s: ("mod-flows", f"{_rule(s)} actions=drop"), 80),
    "a delivery that drops": (
        lambda s: ("mod-flows", f"table=73,dl_dst={s.two.mac} actions=drop"),
        80,
    ),
    "an address that is no member's": (
        lambda s: ("mod-flows", "table=82,ip,nw_src=10.0.0.0/24 actions=conjunction(4000,1/2)"),
        8080,
    ),
    "a conjunction that drops": (lambda s: ("mod-flows", "table=82,conj_id=1 actions=drop"), 8080),
    "the pipeline's default for rules": (
        lambda s: ("mod-flows", "--strict", "table=82,priority=0 actions=resubmit(,83)"),
        81,
    ),
    "the last door": (
        lambda s: ("mod-flows", f"table=84,reg5={s.ofport} actions=output:65000"),
        80,
    ),
}


@pytest.mark.parametrize("what", KEEPING_THE_COOKIE)
def test_resync_puts_right_a_flow_whose_actions_were_changed(scene: Scene, what: str) -> None:
    change, port = KEEPING_THE_COOKIE[what]
    right = scene.passes(port)
    scene.ofctl(*change(scene))
    assert scene.passes(port) is not right
    scene.resync(scene.two)
    assert scene.passes(port) is right
    assert scene.flows() == scene.before


STRANGERS = {
    "above all rules": "table=82,priority=65000,reg5={ofport},actions=output:{ofport}",
    "with the priority of a rule": "table=82,priority=74,tcp,reg5={ofport},tp_dst=81,"
    "actions=output:{ofport}",
    "with another port's cookie": "cookie={copied:#x},table=82,priority=76,reg5={ofport},"
    "actions=output:{ofport}",
    "with the port's own cookie": "cookie={own:#x},table=82,priority=76,tcp,reg5={ofport},"
    "actions=resubmit(,83)",
    "in the first table": "table=0,priority=500,ip,dl_dst={mac},actions=output:{ofport}",
    "in an unused table, and the way there": "table=71,priority=500,ip,actions=resubmit(,84),"
    "load:{ofport}->NXM_NX_REG5[],resubmit(,84)",
    "that ends by itself": "table=81,priority=500,hard_timeout=600,reg5={ofport},"
    "actions=output:{ofport}",
    "in the table of what was refused": "table=93,priority=1,reg5={ofport},actions=output:{ofport}",
    "with a network's cookie": "cookie={network:#x},table=81,priority=500,reg5={ofport},"
    "actions=output:{ofport}",
}


def _add_stranger(scene: Scene, what: str) -> None:
    ofports = [scene.host.switch.ofport(vm.tap) for vm in (scene.one, scene.two)]
    cookies = {
        each
        for line in scene.before
        for each in [int(line.partition("cookie=")[2].partition(",")[0], 16)]
        if cookie.kind(each) == cookie.Kind.PORT
    }
    copied, own = (next(c for c in cookies if cookie.serial(c) == each) for each in ofports)
    scene.ofctl(
        "add-flow",
        STRANGERS[what].format(
            ofport=scene.ofport, mac=scene.two.mac, copied=copied, own=own,
            network=cookie.network(77),
        ),
    )  # fmt: skip


@pytest.mark.parametrize("what", STRANGERS)
def test_resync_removes_and_names_a_strangers_flow(
    scene: Scene, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    _add_stranger(scene, what)
    added = (set(scene.flows()) - set(scene.before)).pop()
    assert scene.passes(81)
    with caplog.at_level(logging.WARNING):
        scene.resync(scene.two)
    assert not scene.passes(81)
    assert scene.passes(80)
    assert scene.flows() == scene.before
    match = added.partition(" actions=")[0].rpartition(" ")[2]
    assert match in caplog.text


def test_port_that_is_wired_does_not_pass_by_a_strangers_flow(
    scene: Scene, make_vm: Callable[..., Vm], settled: Callable[..., list[Vm]]
) -> None:
    _add_stranger(scene, "above all rules")
    settled(make_vm("late"), net=scene.host.server.ports[scene.one.port_id].network)
    assert not scene.passes(81)


def test_refresh_removes_a_strangers_flow(scene: Scene) -> None:
    _add_stranger(scene, "above all rules")
    (group_id,) = scene.host.server.groups
    old = scene.host.server.groups[group_id]
    scene.host.server.groups[group_id] = dataclasses.replace(old, revision=2, rules=old.rules[:-1])
    scene.host.casts.security_groups_changed("host-1", [group_id])
    scene.host.server.wait_for(
        lambda: all(
            r[-1].security_group_revisions == {group_id: 2} and r[-1].failed is None
            for r in (scene.host.server.of(v.port_id) for v in (scene.one, scene.two))
        )
    )
    scene.host.switch.appctl("revalidator/purge")
    assert not scene.passes(81)
    assert scene.passes(80)


@pytest.mark.parametrize("match", ["", "table=71", "table=82", "table=0", "table=84"])
def test_resync_of_a_port_brings_back_deleted_flows(scene: Scene, match: str) -> None:
    scene.ofctl("del-flows", *[match] * bool(match))
    assert not scene.passes(80)
    scene.resync(scene.two)
    assert scene.passes(80)
    assert scene.flows() == scene.before


def test_resync_of_a_host_brings_back_every_flow(scene: Scene) -> None:
    scene.ofctl("del-flows")
    scene.resync()
    assert scene.passes(80)
    assert scene.passes(8080)
    assert scene.flows() == scene.before


def test_resync_puts_right_many_changes_at_once(scene: Scene) -> None:
    for change, _ in KEEPING_THE_COOKIE.values():
        scene.ofctl(*change(scene))
    for what in STRANGERS:
        _add_stranger(scene, what)
    scene.ofctl("del-flows", "table=95")
    scene.resync(scene.one)
    assert scene.flows() == scene.before


def test_resync_leaves_right_flows_as_they_are(scene: Scene) -> None:
    scene.resync(scene.two)
    scene.resync()
    assert scene.flows() == scene.before


def test_restart_of_the_agent_removes_changes_made_meanwhile(scene: Scene) -> None:
    plain = scene.plain_flows()
    scene.host.stop()
    for change, _ in KEEPING_THE_COOKIE.values():
        scene.ofctl(*change(scene))
    for what in STRANGERS:
        _add_stranger(scene, what)
    scene.host.start()
    scene.host.server.wait_for(lambda: scene.host.server.of(scene.two.port_id, FlowName.RESYNC))
    scene.host.ready()
    scene.host.until(lambda: len(scene.flows()) == len(plain), "strangers' flows are removed")
    scene.host.switch.appctl("revalidator/purge")
    assert (scene.passes(80), scene.passes(81), scene.passes(8080)) == (True, False, True)


def test_resync_puts_right_the_flows_of_a_network(
    host: Host,
    make_vm: Callable[..., Vm],
    settled: Callable[..., list[Vm]],
    request: pytest.FixtureRequest,
) -> None:
    host.switch.add_bridge("br-ex", fail_mode="standalone")
    host.mappings = {"physnet1": "br-ex"}
    net = network("vlan", segmentation_id=100)
    one, two = settled(make_vm("one"), make_vm("two"), net=net, groups=[web()])
    host.ready()
    with contextlib.closing(Scene(host, one, two)) as scene:
        scene.ofctl("mod-flows", "table=94 actions=drop")
        scene.ofctl("del-flows", "table=60,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00")
        scene.ofctl("add-flow", f"cookie={cookie.network(1):#x},table=94,priority=500 actions=drop")
        scene.resync(two)
        assert scene.flows() == scene.before
