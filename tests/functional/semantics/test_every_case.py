"""Each case of what a firewall equivalent to Neutron's must do has tests with real packets.

The numbers are those of the list the project was given; ``TESTS`` says where
each case is asked, as modules and the words their tests' names begin with.
"""

import ast
from pathlib import Path

import pytest

HERE = Path(__file__).parent
AGENT = "../agent/test_restarts.py"

CASES = {
    1: "default deny; groups without rules; several groups on a port; group taken off a port",
    2: "ingress and egress, IPv4 and IPv6, any, tcp, udp, sctp, icmp, ipv6-icmp, protocol number",
    3: "port ranges as masks, full range, source ranges; ICMP type and code, type 0",
    4: "CIDRs; a prefix of length 0 is no match field",
    5: "remote group: own, other, empty, of other hosts, address pairs, coming and going",
    6: "remote address group, overlapping with a remote group",
    7: "the same rule through several groups; overlapping ranges",
    8: "replies and related packets pass without a rule",
    9: "rule removed: established connections are cut; added again: works again",
    10: "no gap and no leak during an update, and none by one that fails",
    11: "anti-spoofing: MAC, IP, ARP, ND target, RARP, link-local",
    12: "DHCP client from its own MAC and address only; DHCP server and RA of a VM dropped",
    13: "ICMPv6 that needs no rule, in and out",
    14: "allowed address pairs: other MAC, CIDR, both families; the same MAC on two networks",
    15: "port security off, switched live; trusted ports",
    16: "two ports on one host: egress, then ingress",
    17: "packets that arrive tracked",
    18: "VLAN, flat and tunnel ingress; changed tag and ofport; replug",
    19: "permitted ethertypes",
    20: "stateless groups",
    21: "restart of the switch and of the agent",
    22: "invalid packets",
    23: "multicast, broadcast",
    24: "conntrack of the userspace datapath, which nobody reaches from outside",
}

TESTS = {
    1: ["test_rules.py::TestDefaultDeny"],
    2: ["test_rules.py::TestDirectionAndProtocol"],
    3: ["test_rules.py::TestPortsAndTypes"],
    4: ["test_rules.py::TestPrefixes"],
    5: ["test_remote_groups.py::TestRemoteGroup"],
    6: ["test_remote_groups.py::TestAddressGroup"],
    7: ["test_remote_groups.py::TestRulesThatSayTheSame"],
    8: ["test_connections.py::TestReplies"],
    9: ["test_connections.py::TestCut"],
    10: ["test_updates.py::test_no_gap_and_no_leak", "test_failed_updates.py::test_"],
    11: ["test_speaking_as_oneself.py::TestAntiSpoofing"],
    12: [
        "test_speaking_as_oneself.py::TestDhcp",
        "test_speaking_as_oneself.py::TestIcmpv6::test_a_vm_is_no_router",
    ],
    13: [
        "test_speaking_as_oneself.py::TestIcmpv6::test_what_a_port_without_rules",
        "test_speaking_as_oneself.py::TestIcmpv6::test_a_port_without_rules_answers",
    ],
    14: ["test_speaking_as_oneself.py::TestAddressPairs"],
    15: ["test_port_security.py::TestPortSecurity", "test_port_security.py::TestTrustedPorts"],
    16: ["test_networks.py::TestTwoPortsOfOneHost"],
    17: ["test_port_security.py::TestTrackedPackets"],
    18: [
        "test_networks.py::TestProviderNetworks",
        "test_networks.py::TestReplug",
        "test_tunnels.py::test_",
    ],
    19: ["test_port_security.py::TestEthertypes"],
    20: ["test_stateless.py::test_"],
    21: [
        "test_networks.py::TestRestarts",
        f"{AGENT}::test_a_restart_of_the_agent_closes_nobody",
        f"{AGENT}::test_a_killed_switch_heals_by_itself",
        f"{AGENT}::test_a_port_that_left_while_the_agent_was_away_is_swept",
    ],
    22: ["test_connections.py::TestInvalid"],
    23: ["test_networks.py::TestBroadcastAndMulticast"],
    24: ["test_connections.py::TestCut::test_a_cut_needs_nobody"],
}


def names_in(module: Path) -> list[str]:
    """Every test of a module, as ``Class::test`` or ``test``."""
    found = []
    for node in ast.parse(module.read_text()).body:
        if isinstance(node, ast.ClassDef):
            found += [
                f"{node.name}::{each.name}"
                for each in node.body
                if isinstance(each, ast.FunctionDef) and each.name.startswith("test_")
            ]
        elif isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            found.append(node.name)
    return found


@pytest.mark.parametrize("number", CASES)
def test_a_case_has_tests(number: int) -> None:
    assert TESTS[number]
    for where in TESTS[number]:
        module, _, words = where.partition("::")
        assert any(name.startswith(words) for name in names_in(HERE / module)), where


def test_every_test_belongs_to_a_case() -> None:
    asked = [where.partition("::") for wheres in TESTS.values() for where in wheres]
    for module in HERE.glob("test_*.py"):
        words = tuple(each for name, _, each in asked if name == module.name)
        astray = [name for name in names_in(module) if not name.startswith(words)]
        assert astray == [] or module.name == Path(__file__).name
