"""What a project is told of an error of its port: what it can act on, and nothing of the host.

An agent's message may name its host, interfaces, bridges, VLANs, physical
networks, other ports or other networks, and an agent of another release may
say what this one does not. So a project reads a message of ours for each type
of error; an agent's own only where it is about what the project itself wrote.
Pure.
"""

import re

_ABOUT_WHAT_THE_PROJECT_WROTE = frozenset({"InvalidSpec", "MissingSpec", "Unsupported"})
# Interfaces and their columns in OVSDB are the host's.
_OF_THE_HOST = re.compile(r"other_config|ofport|\b(?:tap|qvo|vhu|br-)", re.IGNORECASE)
_OPENFLOW_ERROR = re.compile(r"\bOFP[A-Z]{2,6}_[A-Z0-9_]+\b")
_REFUSED = "the switch refused a flow"
_REFUSALS = frozenset({"FlowRefused", "SwitchError"})

_OTHERS = "the host could not do what was asked of it; an administrator can read why"
_MESSAGES = {
    "InvalidSpec": "a security group, a rule or an address of the port cannot be used",
    "MissingSpec": "the host does not know a security group of the port",
    "Unsupported": "no switch can carry what a rule or an address of the port asks for",
    "UnknownPhysicalNetwork": "the port's network is not connected to its host",
    "BridgeNotFound": "the port's network is not connected to its host",
    "BridgeChanged": "somebody changed the integration bridge of the port's host",
    "PatchPort": "the port's network is not connected to its host",
    "SegmentInUse": "another network has the segment of the port's network on its host",
    "NoLocalVlan": "the port's host has too many networks",
    "OvsdbError": "the database of the port's switch refused a change",
    "IptablesError": "the port's host could not read its iptables rules",
    "AgentSilent": "the agent of the port's host is silent",
    "AgentNeverSeen": "no agent was ever seen on the port's host",
    "ReportOverdue": "the agent of the port's host did not report in time",
    "SwitchUnreachable": "the switch of the port's host cannot be reached",
    "BridgeMissing": "the integration bridge of the port's host is gone",
    "InterfaceNotFound": "the port has no interface on its host",
    "InterfaceError": "the switch cannot use the port's interface",
    "InterfaceChanged": "the port's interface changed meanwhile",
    "NoOfport": "the switch has not taken up the port's interface",
    "NoTag": "the port's interface has no local VLAN on its host",
    "WrongTag": "the port's interface has another local VLAN than it should have",
    "LinkNotFound": "the port's link is not there",
    "LinkRefused": "the host refused the MTU of the port's network",
    "LinkDown": "the port's link is down",
    "LinkMtu": "the port's link has another MTU than its network",
    "QuarantineFailed": "the switch refused the flows that keep an unverified port closed",
    "NotAsCompiled": "the switch does not hold the flows that the port's security groups demand",
    "StrangersFlow": "the switch holds flows of an unknown owner that concern the port",
    "FlowsMissing": "flows that the port's security groups demand are not in the switch",
    "FlowsSurplus": "the switch holds flows that the port's security groups do not demand",
    "RulesMissing": "rules that the port's security groups demand are not in iptables",
    "RulesSurplus": "iptables holds rules that the port's security groups do not demand",
    "NoAttachedMac": "the port's interface has no attached-mac, so nothing filters it",
    "Conflict": "the port has stateful and stateless security groups at once, or another port "
    "claims its interface",
    "Timeout": "the port's host did not answer in time",
    "RevertFailed": "a task could not be undone",
    "NeutronUnreachable": "the port's host cannot reach Neutron's server",
    "GroupsUnreadable": "the port's host knows its security groups only in part",
    "UnknownFirewallDriver": "the firewall driver of the port's host cannot be verified",
}


def for_project(error_type: str, message: str, host: str) -> str:
    """What a project reads where the agent of ``host`` said ``message``."""
    if error_type in _REFUSALS:
        code = _OPENFLOW_ERROR.search(message)
        return f"{_REFUSED}: {code.group()}" if code else _REFUSED
    if (
        error_type in _ABOUT_WHAT_THE_PROJECT_WROTE
        and host.casefold() not in message.casefold()
        and not _OF_THE_HOST.search(message)
    ):
        return message
    return _MESSAGES.get(error_type, _OTHERS)
