"""A rule added to a group of many local ports: the engine, and ``ovs-ofctl`` alone."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence

from agent_flows.openflow.attachment import Attachment
from agent_flows.openflow.ofctl import Ofctl
from agent_flows.openflow.pipeline import OWN_PIPELINE
from agent_flows.openflow.priorities import CONJUNCTIONS
from agent_flows.secgroups.conjunction import Conjunctions
from agent_flows.secgroups.firewall import Firewall
from agent_flows.secgroups.port_flows import compile_ports
from agent_flows.spec import DesiredState
from lab import model
from lab.switch import Switch

BRIDGE = "br-int"
_VLAN = 1
_RULES = 10


@dataclasses.dataclass(frozen=True)
class RuleFigures:
    """Medians in seconds; lines are those of the bundle, ``compile_cpu`` is of 500 ports with
    ten rules each, from nothing."""

    ports: int
    rule_lines: int
    rule_seconds: float
    bare_seconds: float
    ratio: float
    verify_seconds: float
    member_lines: int
    member_seconds: float
    unchanged_lines: int
    compile_cpu: float


class _Recorder(Ofctl):
    """Knows the lines of the last bundle."""

    lines: Sequence[str] = ()

    def bundle(self, lines: Sequence[str]) -> None:
        self.lines = list(lines)
        super().bundle(lines)


class _Group:
    """Ports of one group, all on one network of one host; the desired state in versions."""

    def __init__(self, ports: int) -> None:
        self._id, network = model.new_id(), model.network()
        self._ports = [
            model.port(
                network=dataclasses.asdict(network),
                mac_address=f"fa:16:3e:00:{n >> 8:02x}:{n & 255:02x}",
                fixed_ips=[f"10.{n >> 8}.{n & 255}.1"],
                security_groups=[self._id],
            )
            for n in range(1, ports + 1)
        ]
        self._members = [f"10.{n >> 8}.{n & 255}.1/32" for n in range(1, ports + 1)]
        self._rules = [
            *model.egress_to_anywhere(),
            model.ingress(remote_group_id=self._id),
            *(_tcp(port) for port in range(1001, 1001 + _RULES - 3)),
        ]
        self._revision = 0

    def attachments(self) -> dict[str, Attachment]:
        return {port.id: Attachment(port.id, n, _VLAN) for n, port in enumerate(self._ports, 1)}

    def state(self, *more: model.Rule, member: str = "") -> DesiredState:
        """With these rules and this member ``more`` than it has."""
        self._revision += 1
        members = [*self._members, member] if member else self._members
        group = model.group(
            *self._rules, *more, members=members, id=self._id, revision=self._revision
        )
        return DesiredState.of([*self._ports, group])


def _tcp(port: int) -> model.Rule:
    return model.ingress(protocol="tcp", port=port)


def measure(ports: int, rounds: int, log: Callable[[str], None]) -> RuleFigures:
    """On a switch of its own; every round adds another rule and another member."""
    group = _Group(ports)
    attachments = group.attachments()
    with Switch("bench-rule") as switch:
        switch.add_bridge(BRIDGE)
        ofctl = _Recorder(str(switch.run_dir), BRIDGE, 60)
        firewall = Firewall(ofctl)
        firewall.start()

        def apply(state: DesiredState) -> tuple[float, Sequence[str]]:
            ofctl.lines = ()
            return _timed(lambda: firewall.apply(state, attachments)), ofctl.lines

        apply(group.state())
        rule_lines = member_lines = 0
        rules, bare, verifies, members = [], [], [], []
        for n in range(1, rounds + 1):
            seconds, lines = apply(group.state(_tcp(2000 + n)))
            rule_lines = len(lines)
            rules.append(seconds)
            verifies.append(_timed(lambda: firewall.verify(attachments.keys())))
            apply(group.state())
            bare.append(_bare(switch, lines))
            _bare(switch, [_undone(line) for line in lines])
            seconds, lines = apply(group.state(member=f"192.0.2.{n}/32"))
            member_lines = len(lines)
            members.append(seconds)
            apply(group.state())
            log(
                f"round {n}: a rule for {ports} ports {rules[-1]:.4f} s, ovs-ofctl alone "
                f"{bare[-1]:.4f} s; verified in {verifies[-1]:.4f} s; a member {seconds:.4f} s"
            )
        _, unchanged = apply(group.state())
    figures = RuleFigures(
        ports=ports,
        rule_lines=rule_lines,
        rule_seconds=round(statistics.median(rules), 4),
        bare_seconds=round(statistics.median(bare), 4),
        ratio=round(statistics.median(rules) / statistics.median(bare), 2),
        verify_seconds=round(statistics.median(verifies), 4),
        member_lines=member_lines,
        member_seconds=round(statistics.median(members), 4),
        unchanged_lines=len(unchanged),
        compile_cpu=round(_compile_cpu(), 3),
    )
    log(
        f"median: a rule for {ports} ports is {figures.rule_lines} lines, "
        f"{figures.rule_seconds} s, {figures.ratio:.2f} times ovs-ofctl alone; "
        f"a member {figures.member_lines} lines; "
        f"unchanged {figures.unchanged_lines} lines; 500 ports compile in "
        f"{figures.compile_cpu} s of CPU"
    )
    return figures


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _bare(switch: Switch, lines: Sequence[str]) -> float:
    text = "".join(f"{line}\n" for line in lines)
    return _timed(
        lambda: switch.ofctl("--bundle", "add-flows", switch.management(BRIDGE), "-", stdin=text)
    )


def _undone(line: str) -> str:
    """Of an ``add`` line, the one that takes the flow away again."""
    flow = line.partition(",")[2].partition(" actions=")[0]
    return f"delete_strict {flow}"


def _compile_cpu() -> float:
    group = _Group(500)
    state, attachments = group.state(), group.attachments()
    conjunctions = Conjunctions(CONJUNCTIONS[0], 1)
    began = time.process_time()
    compile_ports(state, attachments, conjunctions, OWN_PIPELINE)
    return time.process_time() - began
