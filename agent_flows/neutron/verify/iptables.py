"""``firewall_driver = iptables_hybrid``: filters on a Linux bridge between VM and switch.

The driver's own generators make the rules that a port must have. Rules are only
counted: how iptables prints them depends on its version.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from neutron.agent.linux import iptables_firewall, iptables_manager
from neutron_lib import constants
from oslo_config import cfg
from oslo_utils import netutils

from agent_flows.engine.task import TaskFailed
from agent_flows.errors import ErrorType
from agent_flows.neutron import privileged
from agent_flows.neutron.interfaces import Interface
from agent_flows.neutron.resource_cache import Known, SecurityGroupInfo
from agent_flows.neutron.verify.inspector import Finding, inspect_each
from agent_flows.report import TaskError

Save = Callable[[str, int], str]
"""Runs a program (iptables-save, ip6tables-save) within seconds; returns what it prints."""

_RULE = re.compile(r"-A (?P<chain>\S+)(?P<rest>.*)")
_PROGRAMS = ("iptables-save", "ip6tables-save")
_NOTHING = Known({}, {}, {}, {})


class IptablesInspector:
    """Counts the rules of a port's own chains, and those of common chains that name its device."""

    def __init__(self, neutron: SecurityGroupInfo, timeout: int, save: Save | None = None) -> None:
        self._neutron, self._timeout, self._save = neutron, timeout, save or run
        self._programs = _PROGRAMS if netutils.is_ipv6_enabled() else _PROGRAMS[:1]

    def inspect(self, ports: Mapping[str, Interface]) -> Mapping[str, Finding]:
        if not ports:
            return {}
        saved = {program: self._rules(program) for program in self._programs}
        known = self._neutron.of(list(ports))
        return inspect_each(ports, lambda port_id: _judge(port_id, known, saved))

    def leftovers(self, ofports: Mapping[str, int]) -> Mapping[str, TaskError]:
        if not ofports:
            return {}
        rules = [rule for program in self._programs for rule in self._rules(program)]
        stale = {port_id: len(_about(_Generator(_NOTHING), port_id, rules)) for port_id in ofports}
        return {
            port_id: TaskError(
                ErrorType.RULES_SURPLUS,
                f"iptables has {number} rules that belong to a port that is gone",
            )
            for port_id, number in stale.items()
            if number
        }

    def _rules(self, program: str) -> list[str]:
        try:
            printed = self._save(program, self._timeout)
        except (OSError, RuntimeError) as exc:
            error = TaskError(
                ErrorType.IPTABLES_ERROR, f"{program} could not read the rules", str(exc)
            )
            raise TaskFailed(error, whole_batch=True) from exc
        return [line for line in printed.splitlines() if line.startswith("-A ")]


def run(program: str, seconds: int) -> str:
    """As root. Raises OSError if it cannot be run or does not end in time, RuntimeError if it
    fails."""
    ran = privileged.execute([program, "-t", "filter"], "", seconds)
    if ran.code:
        raise RuntimeError(ran.stderr.strip() or f"{program} ended with code {ran.code}")
    return ran.stdout


def _judge(port_id: str, known: Known, saved: Mapping[str, Sequence[str]]) -> Finding:
    if port_id in known.unreadable:
        return Finding(missing=known.unreadable[port_id])
    generator = _Generator(known)
    generator.generate(port_id, known.devices.get(port_id))
    missing = []
    for program, rules in saved.items():
        expected = Counter(_about(generator, port_id, generator.rules(program)))
        installed = Counter(_about(generator, port_id, rules))
        missing += [
            f"chain {chain} of {program.removesuffix('-save')} has {installed[chain] or 'none'} of "
            f"the {number} rules that the port needs"
            for chain, number in sorted(expected.items())
            if installed[chain] < number
        ]
    if not missing:
        return Finding()
    more = f", and {len(missing) - 1} more chains lack rules" if missing[1:] else ""
    return Finding(
        missing=TaskError(ErrorType.RULES_MISSING, missing[0] + more, "\n".join(missing))
    )


def _about(generator: "_Generator", port_id: str, rules: Iterable[str]) -> list[str]:
    """The chain of each rule that concerns the port."""
    chains, device = generator.chains(port_id), re.compile(rf" {generator.device(port_id)}\b")
    found = filter(None, map(_RULE.match, rules))
    return [rule["chain"] for rule in found if rule["chain"] in chains or device.search(rule[0])]


class _Generator(iptables_firewall.OVSHybridIptablesFirewallDriver):  # type: ignore[misc]  # untyped
    """Neutron's driver, whose rules are kept here instead of being given to the kernel."""

    def __init__(self, known: Known) -> None:
        # The parent's __init__ is not called: it reads the kernel's rules and changes them.
        self.iptables = iptables_manager.IptablesManager(state_less=True, use_ipv6=True)
        self.ipset = _FilledSets(known.members)
        self.enable_ipset = cfg.CONF.SECURITYGROUP.enable_ipset
        self.sg_rules = known.security_groups
        self.sg_members = known.members
        self._iptables_protocol_name_map: dict[str, str] = {}
        self._add_chain_by_name_v4v6(iptables_firewall.SG_CHAIN)

    def generate(self, port_id: str, device: Mapping[str, Any] | None) -> None:
        """Make the rules of a port; without a device those of a trusted port."""
        if device is None:
            rules = self._generate_trusted_port_rules(port_id)
            self._add_rules_to_chain_v4v6("FORWARD", rules, rules)
            return
        for direction in (constants.INGRESS_DIRECTION, constants.EGRESS_DIRECTION):
            if device["port_security_enabled"]:
                self._setup_chain(device, direction)
            else:
                self._add_accept_rule_port_sec(device, direction)

    def rules(self, program: str) -> list[str]:
        """Almost as iptables-save prints them."""
        family = self.iptables.ipv6 if program.startswith("ip6") else self.iptables.ipv4
        return list(dict.fromkeys(str(rule) for rule in family["filter"].rules))

    def chains(self, port_id: str) -> frozenset[str]:
        """The names of the port's own chains."""
        kinds = iptables_firewall.CHAIN_NAME_PREFIX
        names = (self._port_chain_name({"device": port_id}, kind) for kind in kinds)
        return frozenset(f"{self.iptables.wrap_name}-{name}" for name in names)

    def device(self, port_id: str) -> str:
        """The device that names the port in common chains."""
        return str(self._get_device_name({"device": port_id}))


class _FilledSets:
    """The sets of remote groups with members: the driver makes no rules for the others."""

    get_name = staticmethod(iptables_firewall.ipset_manager.IpsetManager.get_name)

    def __init__(self, members: Mapping[str, Mapping[str, Sequence[object]]]) -> None:
        self._names = {
            self.get_name(group_id, ethertype)
            for group_id, families in members.items()
            for ethertype, addresses in families.items()
            if addresses
        }

    def set_name_exists(self, name: str) -> bool:
        return name in self._names
