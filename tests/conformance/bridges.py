"""One dummy switch with a bridge for each firewall, and a world on all of them.

A bridge has the same ports at the same numbers, so one packet can be put to
each. Besides the firewall it has what Neutron's agent, or our own l2, writes
there: the tables before it and the networks' translation at the uplink.
"""

import re

from agent_flows.l2 import network_flows
from agent_flows.l2.bridges import Uplink
from agent_flows.openflow.pipeline import Home
from lab.switch import Switch
from tests.conformance import ours, theirs, trace
from tests.conformance.world import Network, Packet, Verdict, World

OURS, OWN, THEIRS = "br-ours", "br-own", "br-theirs"
SLOTS = {number: 1 if number <= 4 else 2 for number in range(1, 8)}
"""The ports there are, by number, and the local VLAN each is on."""
PHYSICAL, TUNNEL = 10, 11
"""The patch ports to the physical and the tunnel bridge."""
_TUNNELS = frozenset({"vxlan", "gre", "geneve"})


class Bridges:
    """Installs worlds and asks for verdicts."""

    def __init__(self, switch: Switch, tracer: trace.Tracer) -> None:
        self.switch = switch
        self._tracer = tracer
        self.bend: ours.Bend | None = None
        """What goes wrong with our flows on their way into the switch."""
        for bridge in (OURS, OWN, THEIRS):
            switch.add_bridge(bridge)
            self._plug(bridge)
        shown = tracer.call("dpif/show")
        self._datapath_ports = {
            bridge: {
                int(found[1]): number
                for number in (*SLOTS, PHYSICAL, TUNNEL)
                if (found := re.search(rf"{interface(bridge, number)} {number}/(\d+):", shown))
            }
            for bridge in (OURS, OWN, THEIRS)
        }

    def _plug(self, bridge: str) -> None:
        commands: list[str] = []
        for number, vlan in [*SLOTS.items(), (PHYSICAL, None), (TUNNEL, None)]:
            name = interface(bridge, number)
            tag = [] if vlan is None else [f"tag={vlan}"]
            commands += ["--", "add-port", bridge, name, *tag]
            commands += ["--", "set", "Interface", name, "type=dummy", f"ofport_request={number}"]
        self.switch.vsctl(*commands[1:])

    def install(self, world: World, *bridges: str) -> None:
        """``world`` on each of ``bridges``, from nothing."""
        for bridge in bridges:
            self.surround(world, bridge, "delete")
            if bridge == THEIRS:
                self.write(bridge, theirs.flows(world, lambda n: interface(THEIRS, n)))
            else:
                engine = self.engine(bridge, world.permitted_ethertypes)
                engine.start()
                engine.go_to(world)

    def engine(self, bridge: str, permitted_ethertypes: frozenset[int]) -> ours.Engine:
        home = Home.NEUTRON if bridge == OURS else Home.OWN
        return ours.Engine(self.switch.run_dir, bridge, home, permitted_ethertypes, self.bend)

    def surround(self, world: World, bridge: str, *before: str) -> None:
        """What is on the bridge besides the firewall; lines ``before`` go first."""
        lines = _own_networks(world) if bridge == OWN else _agents_flows(world)
        self.write(bridge, [*before, *lines])

    def write(self, bridge: str, lines: list[str]) -> None:
        where = self.switch.management(bridge)
        text = "\n".join(lines) + "\n"
        self.switch.ofctl("--bundle", "add-flows", where, "-", stdin=text)

    def verdict(self, world: World, packet: Packet, bridge: str) -> Verdict:
        text = self.explain(world, packet, bridge)
        if packet.tag is None:
            self._check_tags(text, packet, bridge)
        return trace.read(text, (PHYSICAL, TUNNEL))

    def _check_tags(self, text: str, packet: Packet, bridge: str) -> None:
        """A VM gets frames without a tag; between bridges they have the local VLAN's."""
        for datapath_port, tag in trace.outputs(text):
            number = self._datapath_ports[bridge].get(datapath_port)
            if number is not None:
                due = None if number in SLOTS else packet.vlan
                assert tag == due, f"port {number} gets {packet} with tag {tag}:\n{text}"

    def tracks_again(self, world: World, packet: Packet, *bridges: str) -> bool:
        """Whether a bridge asks conntrack about the packet more than once (for several
        receivers): a trace knows the connection's mark only the first time."""
        return any(
            self.explain(world, packet, bridge).count("resume conntrack") > 1 for bridge in bridges
        )

    def explain(self, world: World, packet: Packet, bridge: str) -> str:
        """The whole trace of ``packet``."""
        if packet.source in world.ports:
            flow = trace.flow_of(packet, packet.source, packet.tag)
        else:
            in_port, tag = _arrival(world.networks[packet.vlan], packet.vlan)
            flow = trace.flow_of(packet, in_port, tag)
        return self._tracer.trace(bridge, flow, packet.state)


def interface(bridge: str, number: int) -> str:
    return f"{bridge.removeprefix('br-')}{number}"


def _arrival(network: Network, vlan: int) -> tuple[int, int | None]:
    """The port and the tag with which a frame of a network comes in."""
    if network.kind in _TUNNELS:
        return TUNNEL, vlan  # the tunnel bridge puts the local VLAN on
    return PHYSICAL, network.segment


def _agents_flows(world: World) -> list[str]:
    """What Neutron 29's agent has on br-int: br_int.py, setup_default_table and
    provision_local_vlan."""
    flows = [
        "table=0,priority=65535,dl_vlan=4095 actions=drop",
        f"table=0,priority=2,in_port={PHYSICAL} actions=drop",
        "table=0,priority=0 actions=resubmit(,58)",
        "table=58,priority=0 actions=resubmit(,59)",
        "table=59,priority=0 actions=resubmit(,60)",
        "table=60,priority=1 actions=NORMAL",
        "table=62,priority=3 actions=NORMAL",
    ]
    for vlan, network in world.networks.items():
        if network.kind in _TUNNELS:
            continue
        tag = f"set_field:{0x1000 | vlan}->vlan_vid,resubmit(,58)"
        if network.segment is None:
            match, actions = "vlan_tci=0x0000/0x1000", f"push_vlan:0x8100,{tag}"
        else:
            match, actions = f"dl_vlan={network.segment}", tag
        flows.append(f"table=0,priority=3,in_port={PHYSICAL},{match} actions={actions}")
    return ["delete table=0", *(f"add {flow}" for flow in flows)]


def _own_networks(world: World) -> list[str]:
    """What our l2 has on the integration bridge, by l2 itself; it knows no tunnels."""
    lines: list[str] = []
    for vlan, network in world.networks.items():
        spec = ours.network(vlan, network)
        uplink = Uplink("physnet1", "br-ex", PHYSICAL, 1)
        flows = network_flows.on_integration_bridge(spec, vlan, uplink)
        lines += network_flows.replacement(flows, vlan)
    return lines
