"""A firewall, VMs it guards, and one random change after another while packets go on."""

import itertools
import random
from collections.abc import Sequence

import pytest

from agent_flows.engine.task import PortErrors
from agent_flows.openflow.attachment import Attachment
from agent_flows.openflow.pipeline import Home, Pipeline, Table
from agent_flows.secgroups.firewall import Firewall
from agent_flows.spec import TCP, UDP, DesiredState
from lab.switch import Switch
from lab.vm import Vm
from tests.functional.packets.bridge import prepare
from tests.functional.packets.rounds import History, Rounds
from tests.functional.packets.verdicts import Probe, Verdict, verdict
from tests.functional.packets.walk import PORTS, Step, Walk

BRIDGE = "br-int"


class Trial:
    """A firewall, VMs it guards, and what is desired of it just now."""

    def __init__(self, switch: Switch, vms: Sequence[Vm], home: Home, seed: int) -> None:
        self.switch, self.random = switch, random.Random(seed)
        self.pipeline = Pipeline(home)
        *self.raw, talker, listener, witness = vms
        self.talk = talker, listener
        for vm in self.raw:
            # Their kernels answer nothing: packets are made and read by the test alone.
            vm.namespace.ip("address", "flush", "dev", "eth0")
        self.ofctl = prepare(switch, BRIDGE, home, [vm.tap for vm in vms])
        self.firewall = Firewall(self.ofctl, self.pipeline)
        self.walk = Walk(self.random, vms, open_=[*self.talk, witness])
        self.desired = self.walk.first
        self.attachments = {
            vm.port_id: Attachment(vm.port_id, switch.ofport(vm.tap), 1) for vm in vms
        }
        self.probes = self._probes()
        self.history = History(self.verdicts(self.desired))
        self.rounds = Rounds(self.raw, witness, self.probes, self.history)
        self.done = 0
        self.log: list[str] = []
        self.firewall.start()
        self.write(self.desired, list(self.attachments))

    def _probes(self) -> list[Probe]:
        kinds = [
            (protocol, family, established)
            for protocol in (TCP, UDP)
            for family in (0, 1)
            for established in (True, False)
        ]
        numbers = itertools.count()
        return [
            Probe(
                next(numbers),
                (one.port_id, two.port_id),
                (address(one, family), address(two, family)),
                protocol,
                self.random.choice(PORTS),
                established,
            )
            for one, two in itertools.permutations(self.raw, 2)
            for protocol, family, established in self.random.sample(kinds, 4)
        ]

    def verdicts(self, desired: DesiredState) -> list[Verdict]:
        return [verdict(desired, probe) for probe in self.probes]

    def write(self, desired: DesiredState, ports: Sequence[str]) -> None:
        self.firewall.apply(desired, {port: self.attachments[port] for port in ports})
        self.firewall.verify(ports)
        self.firewall.commit(ports)

    def change(self) -> None:
        """One change of any kind."""
        kind = self.random.choices(
            [self.update, self.take_back, self.be_refused, self.restart], [92, 5, 1, 1]
        )[0]
        kind()
        self.done += 1

    def ports_of(self, step: Step) -> list[str]:
        return sorted(step.ports | self.firewall.affected_by(step.groups))

    def update(self) -> None:
        step = self.walk.step(self.desired)
        self._note(step.words)
        self.history.begin(self.verdicts(step.desired))
        self.write(step.desired, self.ports_of(step))
        self._settle(step.desired)

    def take_back(self) -> None:
        """What happens to a batch in which another port fails."""
        step = self.walk.rules_only(self.desired)
        self._note(f"reverted: {step.words}")
        ports = self.ports_of(step)
        self.history.begin(self.verdicts(step.desired))
        self.firewall.apply(step.desired, {port: self.attachments[port] for port in ports})
        self.history.begin(self.verdicts(self.desired))
        self.firewall.revert(ports)
        self._settle(self.desired)

    def be_refused(self) -> None:
        """The switch takes no more flows, and all stays as it is."""
        step = self.walk.impossible(self.desired)
        self._note(f"refused: {step.words}")
        count = len(self.switch.flows(BRIDGE, f"table={Table.RULES_INGRESS:d}"))
        self.switch.set_flow_limit(BRIDGE, Table.RULES_INGRESS, count)
        with pytest.raises(PortErrors):
            self.write(step.desired, self.ports_of(step))
        self.switch.lift_flow_limit(BRIDGE, Table.RULES_INGRESS)

    def restart(self) -> None:
        """A new process of the agent, with the flows of the old one, and a change in between."""
        step = self.walk.step(self.desired)
        self._note(f"restart: {step.words}")
        self.firewall = Firewall(self.ofctl, self.pipeline)
        self.firewall.start()
        self.history.begin(self.verdicts(step.desired))
        ports = list(self.attachments)
        self.random.shuffle(ports)
        half = self.random.randrange(len(ports) + 1)
        for batch in (ports[:half], ports[half:]):
            self.write(step.desired, batch)
        self.firewall.sweep(set(ports), [each.ofport for each in self.attachments.values()])
        self._settle(step.desired)

    def _note(self, words: str) -> None:
        self.log.append(f"state {self.history.newest + 1}: {words}")

    def _settle(self, desired: DesiredState) -> None:
        self.desired = desired
        # The datapath's cache follows the tables a moment later, by itself; most of the time
        # it is made to follow now, so that the states before count no more.
        if self.random.random() < 0.8:
            self.switch.appctl("revalidator/purge")
            self.history.settle()

    def summary(self) -> str:
        judged, newest = self.rounds.judged, self.history.newest
        found = [f"leak: {each}" for each in self.rounds.leaks[:5]]
        found += [f"gap: {each}" for each in self.rounds.gaps[:5]]
        return "\n".join(
            [
                f"{self.done} changes, {newest} states, {dict(judged)} packets judged,"
                f" {len(self.rounds.gaps)} gaps, {len(self.rounds.leaks)} leaks",
                *found,
                *self.log[-12:],
            ]
        )


def address(vm: Vm, family: int) -> str:
    return vm.addresses[family].partition("/")[0]
