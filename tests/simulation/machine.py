"""The search: hypothesis draws histories of a world, and shrinks one that breaks an invariant."""

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.simulation.bus import FATES
from tests.simulation.switch import Trouble
from tests.simulation.world import CASTS, GROUPS, HOSTS, ORDER, PORTS, World

_ports = st.sampled_from(PORTS)
_number = st.integers(0, 3)
_groups = st.sampled_from([GROUPS[:1], GROUPS[:1], GROUPS[1:], GROUPS])
_CALLS = ["report", "report", "get_desired", "get_revisions", "heartbeat"]
_processes = st.sampled_from([0, 1, 2, 2, 3, 3, 4])
_turns = st.sampled_from([0, 1, 2, 2, 2, 3, 3, 4, 5])
_agents = st.sampled_from([0, 0, 1, 1, 2])
_points = st.sampled_from(range(9))
_EVERYONE = [0, 1, 2, 3, 4]
_then = st.tuples(
    st.sampled_from([[], _EVERYONE, _EVERYONE, _EVERYONE, [0, 1, 2], [0, 1, 3], [2], [3, 4]]),
    st.sampled_from(
        ["", "", "", "sends reports", "sends reports", "asks the server", CASTS, ORDER]
    ),
    st.sampled_from([None, None, None, *range(4)]),
    st.sampled_from([*PORTS, *GROUPS]),
)
"""Who has a turn after something has happened, what they do not get to, and at which point of a
worker something is changed, what, and another worker has a turn."""


def happening(**drawn: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Any]:
    """A rule: after it processes go on, for else most of what happens would come to nothing."""

    def decorate(act: Callable[..., None]) -> Any:
        def happen(self: "Histories", then: Any, **values: Any) -> None:
            act(self, **values)
            who, but, points, changed = then
            processes = [self.world.processes[each] for each in who]
            with self.world.overlapping(processes, points, changed):
                self.world.everyone(processes, but=but)

        happen.__name__ = act.__name__
        return rule(then=_then, **drawn)(happen)

    return decorate


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

    @happening(port=_ports, host=st.sampled_from([*HOSTS, None]), groups=_groups)
    def put_port(self, port: str, host: str | None, groups: list[str]) -> None:
        self.world.put_port(port, host, groups)

    @happening(port=_ports, agent=_agents, groups=_groups)
    def boot(self, port: str, agent: int, groups: list[str]) -> None:
        """A port is new, or moved."""
        self.world.boot(port, self.world.agents[agent], groups)

    @happening(port=_ports)
    def delete_port(self, port: str) -> None:
        self.world.delete_port(port)

    @happening(port=_ports)
    def readdress(self, port: str) -> None:
        self.world.readdress(port)

    @happening(group=st.sampled_from(GROUPS))
    def delete_group(self, group: str) -> None:
        self.world.delete_group(group)

    @happening(group=st.sampled_from(GROUPS))
    def put_rules(self, group: str) -> None:
        self.world.put_rules(group)

    # What is on the hosts.

    @happening(agent=_agents, port=_ports)
    def plug(self, agent: int, port: str) -> None:
        self.world.plug(self.world.agents[agent], port)

    @happening(
        agent=_agents,
        port=_ports,
        what=st.sampled_from(["loses a flow", "gets a flow of a stranger", "gets another tag"]),
    )
    def tamper(self, agent: int, port: str, what: str) -> None:
        self.world.tamper(self.world.agents[agent], port, what)

    @happening(
        agent=_agents,
        kind=st.sampled_from(["full", "hang", "answer late", "unreachable"]),
        bundles=st.integers(1, 4),
    )
    def trouble_of_switch(self, agent: int, kind: str, bundles: int) -> None:
        self.world.trouble_switch(self.world.agents[agent], Trouble(kind, bundles))

    @happening(agent=_agents)
    def restart_switch(self, agent: int) -> None:
        self.world.restart_switch(self.world.agents[agent])

    @happening(agent=_agents)
    def fill_disk(self, agent: int) -> None:
        self.world.fill_disk(self.world.agents[agent])

    # Processes work, end and start.

    @happening()
    def go_on(self) -> None:
        """Nothing else happens."""

    @happening(order=st.lists(st.tuples(_turns, st.integers(0, 6)), min_size=3, max_size=12))
    def turns(self, order: list[tuple[int, int]]) -> None:
        """Of single threads, in any order."""
        for who, number in order:
            if who < len(self.world.processes):
                self.world.one_turn(self.world.processes[who], number)
            else:
                self.world.handle_cast(number, "arrives")

    @happening(process=_processes)
    def crash(self, process: int) -> None:
        self.world.crash(self.world.processes[process])

    @happening(process=_processes, points=_points)
    def crash_at_a_point(self, process: int, points: int) -> None:
        self.world.crash_later(self.world.processes[process], points)

    @happening(process=_processes, disk=st.sampled_from(["", "", "empty", "old"]))
    def start(self, process: int, disk: str) -> None:
        self.world.restart(self.world.processes[process], disk)

    @happening(agent=_agents)
    def copy_disk(self, agent: int) -> None:
        self.world.copy_disk(self.world.agents[agent])

    # Messages.

    @happening(fate=st.sampled_from(FATES), call=st.sampled_from(_CALLS))
    def fate_of_a_call(self, fate: str, call: str) -> None:
        self.world.doom(fate, call)

    @precondition(lambda self: self.world.bus.late)
    @happening(place=_number)
    def deliver_late_call(self, place: int) -> None:
        self.world.deliver_late(place)

    @precondition(lambda self: self.world.bus.casts)
    @happening(place=_number, fate=st.sampled_from(["arrives", "is lost", "comes twice"]))
    def deliver_cast(self, place: int, fate: str) -> None:
        self.world.handle_cast(place, fate)

    # Time.

    @happening(seconds=st.sampled_from([1.0, 10.0, 40.0, 70.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    # At some point of one process, the others go on.

    @happening(
        process=_processes,
        points=_points,
        what=st.sampled_from(["rules", "port", "turns"]),
        port=_ports,
        host=st.sampled_from(HOSTS),
    )
    def meanwhile(self, process: int, points: int, what: str, port: str, host: str) -> None:
        self.world.meanwhile(self.world.processes[process], points, what, port, host)

    @happening(casts=st.booleans(), now=st.sampled_from([False, False, True]))
    def settle(self, casts: bool, now: bool) -> None:
        """A third as often as the other rules: it takes twenty times as long."""
        if now:
            self.world.settle(casts=casts)
            self._casts = casts

    @invariant()
    def holds(self) -> None:
        self.world.checks.after_step()
