"""Rules change thousands of times while packets go on: none that is allowed before and after a
change is lost, none that is forbidden before and after it passes.

``UPDATES_SEED`` repeats a run, ``UPDATES`` is the number of changes.
"""

import contextlib
import os
import re
import secrets
import threading
from collections.abc import Iterator

import pytest

from agent_flows.openflow.pipeline import Home
from lab.process import run
from lab.switch import Switch
from lab.traffic import Connection
from lab.vm import Vm, plug
from tests.functional.packets.trial import BRIDGE, Trial

CHANGES = int(os.environ.get("UPDATES", "2000"))


@pytest.fixture
def seed() -> int:
    chosen = int(os.environ.get("UPDATES_SEED", secrets.randbelow(1 << 32)))
    print(f"UPDATES_SEED={chosen}")
    return chosen


@pytest.fixture
def vms(switch: Switch) -> Iterator[list[Vm]]:
    """Seven: four send through raw sockets, two through their kernels, one is the witness."""
    with contextlib.ExitStack() as stack:
        made = [
            stack.enter_context(
                Vm(switch, f"vm{n}", f"fa:16:3e:00:00:{n:02x}", [f"10.0.0.{n}/24", f"fd00::{n}/64"])
            )
            for n in range(1, 8)
        ]
        switch.add_bridge(BRIDGE)
        plug(switch, made)
        for vm in made:
            vm.raise_link()
        yield made


class Conversation:
    """Word after word between two kernels, each answered: UDP repeats nothing, so none of its
    packets may be lost."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.asked, self.missed = 0, 0

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        enough = threading.Event()

        def talk() -> None:
            while not enough.is_set():
                self.asked += 1
                self.missed += self._connection.ask(timeout=5) is None

        thread = threading.Thread(target=talk, daemon=True)
        thread.start()
        try:
            yield
        finally:
            enough.set()
            thread.join()


def lost_elsewhere(switch: Switch) -> str:
    """Packets that no rule dropped: the switch's own errors, and queues of the kernel that
    overflowed. To be read beside a gap."""
    counters = switch.appctl("coverage/show").splitlines()
    errors = [line for line in counters if line.startswith("datapath_drop_")]
    sockets = run(switch.namespace.argv(["ss", "-0nm"]))
    dropped = [int(number) for number in re.findall(r",d(\d+)\)", sockets)]
    return "\n".join([*errors, f"dropped from queues of the switch's sockets: {sum(dropped)}"])


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("home", "share"), [(Home.OWN, 0.7), (Home.NEUTRON, 0.3)])
def test_no_gap_and_no_leak_through_thousands_of_changes(
    switch: Switch, vms: list[Vm], home: Home, share: float, seed: int
) -> None:
    changes = int(CHANGES * share)
    trial = Trial(switch, vms, home, seed)
    trial.rounds.shake_hands()
    talker, listener = trial.talk
    listener.listen(80)
    listener.listen(53, "udp")
    over_tcp = Conversation(talker.open(listener.ip, 80))
    over_udp = Conversation(talker.open(listener.ip, 53, "udp"))
    with over_tcp.going_on(), over_udp.going_on(), trial.rounds.going_on():
        while trial.done < changes and not trial.rounds.gaps and not trial.rounds.leaks:
            trial.change()
    print(trial.summary())
    print(lost_elsewhere(switch))
    assert not trial.rounds.gaps, trial.summary()
    assert not trial.rounds.leaks, trial.summary()
    for conversation in (over_tcp, over_udp):
        assert conversation.asked > changes
        assert conversation.missed == 0
    assert trial.rounds.judged["allowed"] > changes
    assert trial.rounds.judged["forbidden"] > changes
