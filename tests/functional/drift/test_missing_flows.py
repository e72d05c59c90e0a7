"""No flow of ours, and no table, is there only to forbid: without it no more passes than before."""

import re
from collections.abc import Callable, Mapping, Set

import pytest

from agent_flows.spec import SecurityGroupSpec
from lab.model import egress_to_anywhere, group, network, new_id, rule
from lab.vm import Vm
from tests.functional.agent.host import Host

BRIDGE = "br-int"
UPLINK = "int-br-ex"
STATES = ("trk,new", "trk,est", "trk,inv")
_ACTIONS = re.compile(r"Datapath actions: (.*)")
_NO_OUTPUT = re.compile(r"\w+\([^)]*\)+|\w*[a-z]\w*")


def web() -> SecurityGroupSpec:
    made = new_id()
    return group(
        *egress_to_anywhere(),
        rule(protocol="tcp", port=80),
        rule(protocol="tcp", port=8080, remote_group_id=made),
        id=made,
        members=["10.0.0.0/24"],
    )


def forbidden(host: Host, one: Vm, two: Vm) -> dict[str, str]:
    """What ``one``, or a machine outside, may not send to ``two`` or to all: name to packet."""
    to_two = f"in_port={host.switch.ofport(one.tap)},dl_src={one.mac},dl_dst={two.mac}"
    to_all = f"in_port={host.switch.ofport(one.tap)},dl_src={one.mac},dl_dst=ff:ff:ff:ff:ff:ff"
    outside = (
        f"in_port={host.switch.ofport(UPLINK)},dl_vlan=100,dl_src=fa:16:3e:99:99:99,"
        f"dl_dst={two.mac}"
    )
    ips = f"nw_src={one.ip},nw_dst={two.ip}"
    high = int(one.mac[:2], 16) ^ 2
    parts = one.mac.split(":")
    link_local = f"fe80::{high:x}{parts[1]}:{parts[2]}ff:fe{parts[3]}:{parts[4]}{parts[5]}"
    v6 = f"ipv6_src={link_local},ipv6_dst=fe80::1"
    return {
        "a closed TCP port": f"{to_two},tcp,{ips},tcp_src=1000,tcp_dst=81",
        "UDP": f"{to_two},udp,{ips},udp_src=1000,udp_dst=81",
        "another IP": f"{to_two},tcp,nw_src=10.0.0.250,nw_dst={two.ip},tcp_src=1000,tcp_dst=80",
        "another MAC": f"{to_two},tcp,{ips},tcp_src=1000,tcp_dst=80".replace(
            f"dl_src={one.mac}", "dl_src=fa:16:3e:aa:aa:aa"
        ),
        "another's ARP": f"{to_two},arp,arp_op=2,arp_spa=10.0.0.250,arp_tpa={two.ip},"
        f"arp_sha={one.mac}",
        "a DHCP server": f"{to_two},udp,{ips},udp_src=67,udp_dst=68",
        "a DHCPv6 server": f"{to_two},udp6,{v6},udp_src=547,udp_dst=546",
        "router advertisements": f"{to_two},icmp6,{v6},icmpv6_type=134",
        "an unknown ethertype": f"{to_two},dl_type=0x9999",
        "a tag": f"{to_two},dl_vlan=1,tcp,{ips},tcp_src=1000,tcp_dst=80",
        "a broadcast": f"{to_all},udp,nw_src={one.ip},nw_dst=255.255.255.255,udp_src=7,udp_dst=7",
        "a closed port from outside": f"{outside},tcp,nw_src=10.0.0.77,nw_dst={two.ip},"
        "tcp_src=1000,tcp_dst=81",
        "from the wrong segment": f"{outside},tcp,nw_src=10.0.0.77,nw_dst={two.ip},"
        "tcp_src=1000,tcp_dst=80".replace("dl_vlan=100", "dl_vlan=101"),
    }


def outputs(host: Host, packets: Mapping[str, str]) -> dict[tuple[str, str], Set[str]]:
    """The datapath's ports that each packet goes to, by what conntrack calls it."""
    found: dict[tuple[str, str], Set[str]] = {}
    for name, packet in packets.items():
        for state in STATES:
            words = [word for _ in range(4) for word in ("--ct-next", state)]
            trace = host.switch.appctl("ofproto/trace", BRIDGE, packet, *words)
            actions = " ".join(_ACTIONS.findall(trace))
            found[name, state] = set(re.findall(r"\d+", _NO_OUTPUT.sub(" ", actions)))
    return found


@pytest.fixture
def scene(host: Host, make_vm: Callable[..., Vm], settled: Callable[..., list[Vm]]) -> list[Vm]:
    """Two VMs on VLAN 100 of physnet1; no agent repairs anything."""
    host.switch.add_bridge("br-ex", fail_mode="standalone")
    host.mappings = {"physnet1": "br-ex"}
    net = network("vlan", segmentation_id=100)
    vms = settled(make_vm("one"), make_vm("two"), net=net, groups=[web()])
    host.ready()
    host.stop()
    return vms


def test_a_missing_flow_or_table_lets_nothing_pass_that_is_forbidden(
    host: Host, scene: list[Vm]
) -> None:
    one, two = scene
    packets = forbidden(host, one, two)
    before = outputs(host, packets)
    allowed = f"in_port={host.switch.ofport(one.tap)},dl_src={one.mac},dl_dst={two.mac},tcp,"
    allowed += f"nw_src={one.ip},nw_dst={two.ip},tcp_src=1000,tcp_dst=80"
    assert len(outputs(host, {"": allowed})["", "trk,new"]) == 1
    flows = host.switch.flows(BRIDGE)
    tables = sorted({table for line in flows for table in re.findall(r"table=\d+", line)})
    keys = [re.sub(r"cookie=\w+, *", "", line).partition(" actions=")[0] for line in flows]
    bridge = host.switch.management(BRIDGE)
    for strict, match in [*(("--strict", key) for key in keys), *(("", each) for each in tables)]:
        host.switch.ofctl(*[strict] * bool(strict), "del-flows", bridge, match)
        for packet, ports in outputs(host, packets).items():
            assert ports <= before[packet], f"{packet} passes without {match}"
        host.switch.bundle(BRIDGE, *flows)
