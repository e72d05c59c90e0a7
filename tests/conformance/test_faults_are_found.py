"""The comparison finds what it is for: flows that are missing, too wide, or overwritten."""

import dataclasses
import re
from collections.abc import Iterator

import pytest

from tests.conformance.bridges import OURS, SLOTS, Bridges
from tests.conformance.examples import Examples
from tests.conformance.judges import AgainstModel, AgainstNeutron
from tests.conformance.ours import Bend
from tests.conformance.worlds import worlds


def _without(pattern: str) -> Bend:
    """Flows that match ``pattern`` get lost."""
    return lambda line: "" if re.search(pattern, line) else line


def _instead(pattern: str, replacement: str) -> Bend:
    return lambda line: re.sub(pattern, replacement, line)


_WORLDS = 200
"""The first few do, mostly."""

FAULTS: dict[str, Bend] = {
    "rules for a port are lost": _without(r"priority=74,.*tp_dst="),
    "a port range is one bit too wide": _instead(r"tp_dst=(\d+)\b(?!/)", r"tp_dst=\1/0xfffe"),
    "ICMP type 0 is every type": _instead(r"icmp_type=0\b,?", ""),
    "an address's groups overwrite each other": _instead(
        r"conjunction\(\d+,1/2\),(?=conjunction)", ""
    ),
    "a remote prefix is forgotten": _instead(r"(priority=74,.*),nw_(src|dst)=[^, ]+", r"\1"),
    "the sender inside ARP is not looked at": _instead(r",arp_spa=[^, ]+", ""),
    "an IPv6 source is not looked at": _instead(r"(priority=65,.*),ipv6_src=[^, ]+", r"\1"),
    "a MAC leads to it from every network": _instead(r"(table=73.*)reg6=\d+,", r"\1"),
    "answers of a cut connection pass": _instead(r"(priority=90,.*),ct_mark=0", r"\1"),
    "invalid packets are let through": _instead(
        r"(priority=95,ct_state=\+trk\+inv.*actions=).*", r"\1resubmit(,83)"
    ),
    "connections are not remembered": _instead(r"ct\(commit,zone=[^,]*\),", ""),
    "connections are not cut": _without(r"priority=40,"),
    "a VM may be a DHCP server": _without(r"table=7[12],priority=(70|97),udp"),
}


COMMON = [
    "a remote prefix is forgotten",
    "a MAC leads to it from every network",
    "answers of a cut connection pass",
    "invalid packets are let through",
    "connections are not remembered",
    "a VM may be a DHCP server",
]
"""Found in a world or two, so that both comparisons can be shown to find them."""


@pytest.fixture
def faulty(bridges: Bridges, request: pytest.FixtureRequest) -> Iterator[Bridges]:
    bridges.bend = FAULTS[request.param]
    yield bridges
    bridges.bend = None


def _found(examples: Examples, judge: AgainstModel | AgainstNeutron) -> bool:
    patient = dataclasses.replace(examples, count=_WORLDS)
    drawn = worlds(SLOTS, of_neutron=True)
    return patient.search(drawn, judge.install, judge.judge) is not None


@pytest.mark.parametrize("faulty", FAULTS, indirect=True)
def test_by_the_model(faulty: Bridges, examples: Examples) -> None:
    assert _found(examples, AgainstModel(faulty, OURS))


@pytest.mark.parametrize("faulty", COMMON, indirect=True)
def test_by_neutrons_driver(faulty: Bridges, examples: Examples) -> None:
    assert _found(examples, AgainstNeutron(faulty))
