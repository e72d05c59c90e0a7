"""Provider networks, replugged ports, restarts and broadcast: the rules stay the same."""

import dataclasses
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from agent_flows.report import FlowName
from lab import frames
from lab.model import everything, group, ip, network, rule
from lab.vm import Vm
from tests.functional.packets.world import World

HTTP = rule(protocol="tcp", port=80)
_NUMBERS = itertools.count(1)


class TestProviderNetworks:
    @pytest.mark.parametrize("kind", ["vlan", "flat"])
    def test_rules_decide_about_what_comes_from_and_goes_to_the_segment(
        self, world: World, kind: str
    ) -> None:
        segment = 300 if kind == "vlan" else None
        inside = world.insider(f"in-{kind}")
        outside = world.outsider(f"out-{kind}", segment=segment)
        provider = network(kind, segmentation_id=segment)
        world.wire(inside, group(HTTP, rule("egress", protocol="udp", port=53)), network=provider)
        assert world.reaches(outside, inside, 80)
        assert world.reaches(inside, outside, 53, "udp")
        assert not world.syn_passes(outside, inside, 81)
        assert not world.udp_passes(inside, outside, 54)

    def test_what_has_another_segments_tag_does_not_come_in(
        self, world: World, guarded: Vm, outside: Vm
    ) -> None:
        world.wire(guarded, group(*everything("ingress")))
        elsewhere = world.outsider("elsewhere", segment=101)
        frame = frames.udp(
            (elsewhere.mac, guarded.mac), (outside.ip, guarded.ip), (1, 53), b"elsewhere"
        )
        seen = world.wire_of(guarded)
        world.wire_of(elsewhere).send(frame)
        # By the time another frame has come the same way, this one would have.
        assert world.udp_passes(outside, guarded, 53)
        assert not seen.arrived(b"elsewhere")

    def test_a_port_moved_to_another_network_is_filtered_there_and_gone_here(
        self, world: World, guarded: Vm, outside: Vm
    ) -> None:
        there = world.outsider("there", segment=301)
        web = group(HTTP)
        world.wire(guarded, web)
        tag = world.host.tag(guarded.tap)
        assert world.reaches(outside, guarded, 80)
        world.wire(guarded, web, network=network("vlan", segmentation_id=301))
        assert world.host.tag(guarded.tap) != tag
        assert world.reaches(there, guarded, 80)
        assert not world.syn_passes(there, guarded, 81)
        assert outside.reach(guarded.ip, 80, timeout=0.3) is None
        world.wire(guarded, web, network=world.network)
        assert world.reaches(outside, guarded, 80)
        assert there.reach(guarded.ip, 80, timeout=0.3) is None


class TestReplug:
    @pytest.fixture
    def served(self, world: World, guarded: Vm) -> Vm:
        world.wire(guarded, group(HTTP))
        world.serve(guarded, 80)
        return guarded

    def test_a_new_ofport_has_the_same_rules_and_the_old_one_none(
        self, world: World, sender: Vm, served: Vm
    ) -> None:
        connection = sender.open(served.ip, 80)
        assert connection.ask() == "guarded"
        old = world.switch.ofport(served.tap)
        new = old + 40
        with self.rewired(world, served):
            world.switch.vsctl("set", "Interface", served.tap, f"ofport_request={new}")
        assert world.switch.ofport(served.tap) == new
        assert connection.ask(timeout=5) == "guarded"
        assert not world.syn_passes(sender, served, 81)
        assert not world.host.port_flows(old)

    def test_an_unplugged_port_is_closed_and_plugged_again_it_has_its_rules(
        self, world: World, sender: Vm, served: Vm
    ) -> None:
        connection = sender.open(served.ip, 80)
        assert connection.ask() == "guarded"
        unwired = len(world.server.of(served.port_id, FlowName.UNWIRE))
        served.unplug()
        world.server.wait_for(
            lambda: len(world.server.of(served.port_id, FlowName.UNWIRE)) > unwired
        )
        assert connection.ask(timeout=0.3) is None
        with self.rewired(world, served):
            world.host.plug_quietly(served)
        assert connection.ask(timeout=5) == "guarded"
        assert not world.syn_passes(sender, served, 81)

    def test_an_ofport_given_to_another_port_has_only_that_ports_rules(
        self, world: World, sender: Vm, served: Vm, third: Vm
    ) -> None:
        first, second = (world.switch.ofport(vm.tap) for vm in (served, third))
        world.wire(third, group(rule(protocol="tcp", port=81)))
        with self.rewired(world, served, third):
            world.switch.vsctl(
                "--", "set", "Interface", served.tap, f"ofport_request={second}",
                "--", "set", "Interface", third.tap, f"ofport_request={first}",
            )  # fmt: skip
        assert [world.syn_passes(sender, served, port) for port in (80, 81)] == [True, False]
        assert [world.syn_passes(sender, third, port) for port in (80, 81)] == [False, True]

    @contextmanager
    def rewired(self, world: World, *vms: Vm) -> Iterator[None]:
        """The block makes the agent wire these ports again."""
        before = {vm.port_id: len(world.server.of(vm.port_id)) for vm in vms}
        yield
        world.server.wait_for(
            lambda: all(len(world.server.of(port)) > count for port, count in before.items())
        )
        world.wait_settled(*vms)


class TestRestarts:
    """What else a restart must not do is asked in tests/functional/agent/test_restarts.py."""

    @contextmanager
    def never_passes(self, world: World, source: Vm, target: Vm) -> Iterator[None]:
        """A datagram no rule allows, sent without a pause while the block lasts."""
        token = b"forbidden %d" % next(_NUMBERS)
        frame = frames.udp((source.mac, target.mac), (source.ip, target.ip), (1, 9), token)
        wire, seen, enough = source.wire(), world.wire_of(target), threading.Event()

        def send() -> None:
            while not enough.wait(0.002):
                wire.send(frame)

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        try:
            yield
        finally:
            enough.set()
            thread.join()
        assert not seen.arrived(token)

    def test_a_restarted_switch_has_the_same_rules_again_and_nothing_passes_before(
        self, world: World, sender: Vm, guarded: Vm, outside: Vm
    ) -> None:
        world.wire(guarded, group(HTTP))
        assert world.reaches(sender, guarded, 80)
        before = len(world.server.of(guarded.port_id, FlowName.RESYNC))
        with self.never_passes(world, outside, guarded):
            world.switch.kill_vswitchd()
            world.switch.start_vswitchd()
            world.server.wait_for(
                lambda: len(world.server.of(guarded.port_id, FlowName.RESYNC)) > before, 20
            )
            world.host.ready()
        assert world.reaches(sender, guarded, 80)
        assert world.reaches(outside, guarded, 80)
        assert not world.syn_passes(outside, guarded, 81)

    def test_rules_that_changed_while_the_agent_was_away_hold_once_it_is_back(
        self, world: World, sender: Vm, guarded: Vm, outside: Vm
    ) -> None:
        both = group(HTTP, rule(protocol="tcp", port=25))
        world.wire(guarded, both)
        for port in (80, 25):
            world.serve(guarded, port)
        stays, goes = sender.open(guarded.ip, 80), sender.open(guarded.ip, 25)
        assert stays.ask() == goes.ask() == "guarded"
        flows = len(world.host.port_flows())
        with self.never_passes(world, outside, guarded):
            world.host.stop()
            assert stays.ask() == goes.ask() == "guarded"
            world.server.groups[both.id] = dataclasses.replace(
                both, revision=2, rules=both.rules[:1]
            )
            world.start_agent()
            world.wait_settled(guarded)
            assert stays.ask() == "guarded"
            assert goes.ask(timeout=0.4) is None
        # Nothing of the process before is left.
        world.host.until(
            lambda: len(world.host.port_flows()) == flows - 1, "the older flows are swept"
        )


class TestBroadcastAndMulticast:
    GROUPS = (
        (frames.BROADCAST, "10.0.0.255"),
        ("33:33:00:00:00:fb", "ff02::fb"),
    )

    @pytest.mark.parametrize(("mac", "address"), GROUPS)
    @pytest.mark.parametrize("from_outside", [True, False])
    def test_it_reaches_the_ports_whose_rules_allow_it(
        self, world: World, sender: Vm, guarded: Vm, third: Vm, outside: Vm, *, mac: str,
        address: str, from_outside: bool,
    ) -> None:  # fmt: skip
        version = 6 if ":" in address else 4
        open_ = rule(protocol="udp", port=5353, ethertype=f"IPv{version}")
        world.wire(guarded, group(open_))
        source, others = (
            (outside, [guarded, third]) if from_outside else (sender, [guarded, third, outside])
        )

        def sent(port: int) -> set[str]:
            ends = (source.mac, mac), (ip(source, version), address)
            words = b"to all %d" % next(_NUMBERS)
            return world.receivers(source, others, frames.udp(*ends, (5353, port), words))

        beyond = set() if from_outside else {"outside"}
        # More than once: one receiver's refusal is no other's.
        for _ in range(2):
            assert sent(5353) == {"guarded"} | beyond
        assert sent(5354) == beyond
