"""The search: hypothesis draws histories of a world, and shrinks one that breaks an invariant."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.simulation.bus import FATES
from tests.simulation.switch import Trouble
from tests.simulation.world import GROUPS, HOSTS, PORTS, World

_ports = st.sampled_from(PORTS)
_number = st.integers(0, 3)
_groups = st.sampled_from([GROUPS[:1], GROUPS[:1], GROUPS[1:], GROUPS])
_CALLS = ["report", "report", "get_desired", "get_revisions", "heartbeat"]
_processes = st.sampled_from([0, 1, 2, 2, 3, 3, 4])
_turns = st.sampled_from([0, 1, 2, 2, 2, 3, 3, 4, 5])
_agents = st.sampled_from([0, 0, 1, 1, 2])


class Histories(RuleBasedStateMachine):
    """Each history is one machine: a world, and what happens in it, one rule after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(PORTS[:2])

    def teardown(self) -> None:
        try:
            self.world.settle(casts=self._casts)
        finally:
            self.world.close()

    _casts = True

    # What is desired.

    @rule(port=_ports, host=st.sampled_from([*HOSTS, None]), groups=_groups)
    def put_port(self, port: str, host: str | None, groups: list[str]) -> None:
        self.world.put_port(port, host, groups)

    @rule(port=_ports, agent=_agents, groups=_groups)
    def boot(self, port: str, agent: int, groups: list[str]) -> None:
        """A port is new, or moved."""
        self.world.boot(port, self.world.agents[agent], groups)

    @rule(port=_ports)
    def delete_port(self, port: str) -> None:
        self.world.delete_port(port)

    @rule(port=_ports)
    def readdress(self, port: str) -> None:
        self.world.readdress(port)

    @rule(group=st.sampled_from(GROUPS))
    def delete_group(self, group: str) -> None:
        self.world.delete_group(group)

    @rule(group=st.sampled_from(GROUPS))
    def put_rules(self, group: str) -> None:
        self.world.put_rules(group)

    # What is on the hosts.

    @rule(agent=_agents, port=_ports)
    def plug(self, agent: int, port: str) -> None:
        self.world.plug(self.world.agents[agent], port)

    @rule(
        agent=_agents,
        port=_ports,
        what=st.sampled_from(["loses a flow", "gets a flow of a stranger", "gets another tag"]),
    )
    def tamper(self, agent: int, port: str, what: str) -> None:
        self.world.tamper(self.world.agents[agent], port, what)

    @rule(
        agent=_agents,
        kind=st.sampled_from(["full", "hang", "answer late", "unreachable"]),
        bundles=st.integers(1, 4),
    )
    def trouble_of_switch(self, agent: int, kind: str, bundles: int) -> None:
        self.world.trouble_switch(self.world.agents[agent], Trouble(kind, bundles))

    @rule(agent=_agents)
    def restart_switch(self, agent: int) -> None:
        self.world.restart_switch(self.world.agents[agent])

    @rule(agent=_agents)
    def fill_disk(self, agent: int) -> None:
        self.world.fill_disk(self.world.agents[agent])

    # Processes work, end and start.

    @rule()
    def everyone(self) -> None:
        self.world.say("everyone has a turn")
        self.world.everyone(self.world.processes)

    second_turn = third_turn = everyone
    """Three times as often as anything else, or most of what happens would come to nothing."""

    @rule(order=st.lists(st.tuples(_turns, st.integers(0, 6)), min_size=3, max_size=12))
    def turns(self, order: list[tuple[int, int]]) -> None:
        """Of single threads, in any order."""
        for who, number in order:
            if who < len(self.world.processes):
                self.world.one_turn(self.world.processes[who], number)
            else:
                self.world.handle_cast(number, "arrives")

    more_turns = turns

    @rule(process=_processes)
    def crash(self, process: int) -> None:
        self.world.crash(self.world.processes[process])

    @rule(process=_processes, points=st.integers(0, 8))
    def crash_at_a_point(self, process: int, points: int) -> None:
        self.world.crash_later(self.world.processes[process], points)

    @rule(process=_processes, disk=st.sampled_from(["", "", "empty", "old"]))
    def start(self, process: int, disk: str) -> None:
        self.world.restart(self.world.processes[process], disk)

    @rule(agent=_agents)
    def copy_disk(self, agent: int) -> None:
        self.world.copy_disk(self.world.agents[agent])

    # Messages.

    @rule(fate=st.sampled_from(FATES), call=st.sampled_from(_CALLS))
    def fate_of_a_call(self, fate: str, call: str) -> None:
        self.world.doom(fate, call)

    @precondition(lambda self: self.world.bus.late)
    @rule(place=_number)
    def deliver_late_call(self, place: int) -> None:
        self.world.deliver_late(place)

    @precondition(lambda self: self.world.bus.casts)
    @rule(place=_number, fate=st.sampled_from(["arrives", "is lost", "comes twice"]))
    def deliver_cast(self, place: int, fate: str) -> None:
        self.world.handle_cast(place, fate)

    # Time.

    @rule(seconds=st.sampled_from([1.0, 10.0, 40.0, 70.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    # At some point of one process, the others go on.

    @rule(
        process=_processes,
        points=st.integers(0, 8),
        what=st.sampled_from(["rules", "port", "turns", "worker"]),
        port=_ports,
        host=st.sampled_from(HOSTS),
    )
    def meanwhile(self, process: int, points: int, what: str, port: str, host: str) -> None:
        self.world.meanwhile(self.world.processes[process], points, what, port, host)

    @rule(casts=st.booleans(), now=st.sampled_from([False, False, True]))
    def settle(self, casts: bool, now: bool) -> None:
        """A third as often as the other rules: it takes twenty times as long."""
        if now:
            self.world.settle(casts=casts)
            self._casts = casts

    @invariant()
    def holds(self) -> None:
        self.world.checks.after_step()
