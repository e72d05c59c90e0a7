"""Every type of error that a task may have: its cause, its remedy, and what a project reads of it.

The one declaration, from which the API takes the remedy and the operators' page its table. On the
wire a type is its name. A name that is not declared comes from an agent of another release, or is
that of an exception that no code expected.
"""

import enum
from collections.abc import Mapping
from typing import Self

FOR_ADMINISTRATORS = "the host could not do what was asked of it; an administrator can read why"
_UNEXPECTED = "no code expected this error; its detail has the traceback: report it as a defect"
_NOT_CONNECTED = "the port's network is not connected to its host"
_EXHAUSTED = (
    "the host has run out of something (memory, open files, processes), or a file or tool is "
    "missing: the message says which",
    "fix it on the host; the agent tries again",
)
_LINK = "look at the link on the host: `ip link show`"


class ErrorType(enum.StrEnum):
    """Each member: the name on the wire, the cause, the remedy, and what a project reads.

    Cause and remedy are Markdown without links, for operators. ``project`` shows nothing of the
    host. ``other_driver``: only in Neutron with a firewall driver that is not ours.
    """

    cause: str
    remedy: str
    project: str
    other_driver: bool

    def __new__(
        cls,
        name: str,
        cause: str,
        remedy: str,
        project: str = FOR_ADMINISTRATORS,
        other_driver: bool = False,
    ) -> Self:
        member = str.__new__(cls, name)
        member._value_ = name
        member.cause, member.remedy = cause, remedy
        member.project, member.other_driver = project, other_driver
        return member

    INTERFACE_NOT_FOUND = (
        "InterfaceNotFound",
        "no interface on the integration bridge has the port's id as its iface-id. Inside Neutron "
        "with our firewall driver such a port is unwired and ABSENT instead",
        "plug it, or correct the interface's `external_ids:iface-id`",
        "the port has no interface on its host",
    )
    INTERFACE_ERROR = (
        "InterfaceError",
        "Open vSwitch cannot use the interface; the message is its `error` column: mostly the "
        "device does not exist",
        "check on the host with `ip link` that the device exists; create it with whatever plugs "
        "the port, or remove the interface from the bridge",
        "the switch cannot use the port's interface",
    )
    NO_OFPORT = (
        "NoOfport",
        "Open vSwitch has not given the interface an ofport yet",
        "wait for the retry; `ovs-vsctl show` on the host shows the interface's error",
        "the switch has given the port's interface no ofport",
    )
    INTERFACE_CHANGED = (
        "InterfaceChanged",
        "the interface was unplugged or plugged again while the port was being wired",
        "wait for the retry",
        "the port's interface changed while the port was being wired",
    )
    LINK_NOT_FOUND = (
        "LinkNotFound",
        "the interface's kernel link does not exist",
        _LINK,
        "the port's link does not exist",
    )
    LINK_REFUSED = (
        "LinkRefused",
        "the kernel refused the network's MTU on the link, or to set the link up",
        _LINK,
        "the host refused the MTU of the port's network",
    )
    LINK_DOWN = (
        "LinkDown",
        "something other than the agent set the link down",
        _LINK,
        "the port's link is down",
    )
    LINK_MTU = (
        "LinkMtu",
        "something other than the agent changed the link's MTU",
        _LINK,
        "the port's link has another MTU than its network",
    )
    UNKNOWN_PHYSICAL_NETWORK = (
        "UnknownPhysicalNetwork",
        "`bridge_mappings` of the host does not contain the network's `physical_network`",
        "add the physical network to `bridge_mappings` of the port's host and restart its agent",
        _NOT_CONNECTED,
    )
    BRIDGE_NOT_FOUND = (
        "BridgeNotFound",
        "the bridge of the network's `physical_network`, or the integration bridge, does not "
        "exist; the message names it. The agent creates the integration bridge again by itself, "
        "Neutron's agent when it starts",
        "create the bridge, or correct `bridge_mappings` and restart the agent",
        _NOT_CONNECTED,
    )
    BRIDGE_MISSING = (
        "BridgeMissing",
        "the host's integration bridge is gone",
        "find out what deleted it; the agent creates it again and wires every port again",
        "the integration bridge of the port's host is gone",
    )
    BRIDGE_CHANGED = (
        "BridgeChanged",
        "something else keeps changing the integration bridge while the agent repairs it",
        "find out what: two agents, or another controller on the bridge",
        "the integration bridge of the port's host was changed from outside",
    )
    PATCH_PORT = (
        "PatchPort",
        "Open vSwitch gave no ofport to a patch port between the integration bridge and the "
        "physical network's bridge",
        "look into the log of ovs-vswitchd",
        _NOT_CONNECTED,
    )
    SEGMENT_IN_USE = (
        "SegmentInUse",
        "another network has the same segment on the host",
        "give one of the two networks another segment",
        "another network has the segment of the port's network on its host",
    )
    NO_LOCAL_VLAN = (
        "NoLocalVlan",
        "more than 4094 networks on the host",
        "move ports of some networks to other hosts",
        "the port's host has too many networks",
    )
    WRONG_TAG = (
        "WrongTag",
        "something other than the agent changed the port's tag",
        "find out what; a resync sets the tag again",
        "the port's interface has another local VLAN than it should have",
    )
    NO_TAG = (
        "NoTag",
        "inside Neutron: the OVS agent has not bound the interface to a local VLAN (Port, "
        "`other_config:tag`); the port is closed until then",
        "look into the log of the OVS agent",
        "the port's interface has no local VLAN on its host",
    )
    QUARANTINE_FAILED = (
        "QuarantineFailed",
        "inside Neutron: the switch refused the flows that keep a port closed until it is "
        "verified, or their removal: `detail` is the switch's message",
        "fix what `detail` names",
        "the switch refused the flows that keep an unverified port closed",
    )
    FLOW_REFUSED = (
        "FlowRefused",
        "the switch refused a flow: `detail` has the flow and the OpenFlow error, such as a full "
        "table (`OFPFMFC_TABLE_FULL`)",
        "fix what `detail` names: for a full table raise its `flow_limit`",
        "the switch refused a flow",
    )
    UNSUPPORTED = (
        "Unsupported",
        "no OpenFlow flow can match what a rule or address contains; the message names it, with "
        "its group",
        "change that rule or address",
        "no switch can match what a rule or an address of the port contains",
    )
    CONFLICT = (
        "Conflict",
        "the port has stateful and stateless groups at once, or another interface has the same "
        "port's id as its iface-id",
        "give the port groups of one kind; unplug the interface that should not have the port's "
        "`external_ids:iface-id`",
        "the port has stateful and stateless security groups at once, or another port claims its "
        "interface",
    )
    MISSING_SPEC = (
        "MissingSpec",
        "the server sent the id of a group that a port or a rule refers to, but not the group",
        "wait for the retry; if it stays, report it as a defect",
        "the host does not know a security group of the port",
    )
    INVALID_SPEC = (
        "InvalidSpec",
        "the server sent an invalid spec of a port, a group or a rule; the message names the "
        "field and what would be valid, the detail shows it. The port keeps what it has; others "
        "are not touched. Inside Neutron a single rule, member, address pair or fixed IP that "
        "cannot be used is left out instead, and named in the agent's log",
        "change what the message names",
        "a security group, a rule or an address of the port cannot be used",
    )
    NOT_AS_COMPILED = (
        "NotAsCompiled",
        "the switch does not hold the flows that the agent wrote, because something else changed, "
        "removed or added some: `detail` lists them. The agent had repaired them, and they "
        "differed again at the second check",
        "find out what writes them; the retry repairs them",
        "the switch does not hold the flows that the port's security groups demand",
    )
    STRANGERS_FLOW = (
        "StrangersFlow",
        "a flow that neither agent_flows nor a known owner wrote decides about the port's packets: "
        "`detail` has it in full. On the standalone agent's bridge such flows are removed, so this "
        "one came back at once; inside Neutron they are left alone",
        "remove the flow, or have its owner reserve its cookie (`OVSCookieBridge`); the retry then "
        "succeeds",
        "the switch holds flows of an unknown owner that concern the port",
    )
    DRIFT = (
        "Drift",
        "the switch no longer holds what was proven of the port, because something other than the "
        "agent changed it: the message names what, `detail` lists the first flows. The report "
        "comes before the repair, which is the next flow of the port",
        "find out what changes it; the agent has repaired it if the next flow succeeded",
        "the port's host was changed by another program; the next flow repairs it",
    )
    SWITCH_ERROR = (
        "SwitchError",
        "ovs-ofctl refused something else: `detail` is its message",
        "fix what `detail` names",
        "the switch refused a flow",
    )
    OVSDB_ERROR = (
        "OvsdbError",
        "OVSDB could not be read, or refused a change: `detail` is its message",
        "fix what `detail` names",
        "the database of the port's switch refused a change",
    )
    SWITCH_UNREACHABLE = (
        "SwitchUnreachable",
        "the bridge's management socket does not answer",
        "check on the host that ovs-vswitchd runs and `ovs_run_dir` is right",
        "the switch of the port's host cannot be reached",
    )
    TOOL_MISSING = (
        "ToolMissing",
        "the agent cannot run `ovs-ofctl`",
        "install Open vSwitch's tools on the host, with `ovs-ofctl` in the agent's PATH",
    )
    OS_ERROR = ("OSError", *_EXHAUSTED)
    FILE_NOT_FOUND = ("FileNotFoundError", *_EXHAUSTED)
    PERMISSION_ERROR = ("PermissionError", *_EXHAUSTED)
    MEMORY_ERROR = ("MemoryError", *_EXHAUSTED)
    TIMEOUT = (
        "Timeout",
        "no answer within `openflow_timeout` or `ovsdb_timeout`; a call of `ovs-ofctl` that does "
        "not end by itself is killed a second later",
        "look at the load of ovs-vswitchd and ovsdb-server on the host",
        "the port's host did not answer in time",
    )
    REVERT_FAILED = (
        "RevertFailed",
        "a task could not be undone after another one failed; the port stays closed or with its "
        "previous rules",
        "fix what `detail` names; the agent tries again",
        "a task could not be undone",
    )
    AGENT_SILENT = (
        "AgentSilent",
        "set by the server: no heartbeat (in Neutron: no state report of the OVS agent) for "
        "`agent_down_time`",
        "start the agent; what it wired keeps working",
        "the agent of the port's host is silent",
    )
    AGENT_NEVER_SEEN = (
        "AgentNeverSeen",
        "set by the server: no agent ever reported as the host that the port is bound to",
        "start an agent there, or correct `binding:host_id`: it is the `host` of an agent",
        "no agent was ever seen on the port's host",
    )
    REPORT_OVERDUE = (
        "ReportOverdue",
        "set by the server: the agent is alive, but did not report within `report_timeout`",
        "look at the agent's troubles and its log",
        "the agent of the port's host did not report in time",
    )
    FLOWS_MISSING = (
        "FlowsMissing",
        "`openvswitch`: flows that the port's rules demand are missing, or do something else. "
        "The message counts them by table, the detail lists the first 20",
        "find in the agent's log what the switch refused and fix that; at the next change of a "
        "rule or restart of the agent Neutron's driver writes the flows again",
        "flows that the port's security groups demand are not in the switch",
        True,
    )
    FLOWS_SURPLUS = (
        "FlowsSurplus",
        "`openvswitch`: the switch holds flows that no rule demands, or of a port that is gone: "
        "something may pass that should not. The detail lists the first 20",
        "restart the agent, which removes what is stale",
        "the switch holds flows that the port's security groups do not demand",
        True,
    )
    NO_ATTACHED_MAC = (
        "NoAttachedMac",
        "the interface has no `external_ids:attached-mac`, so Neutron's driver does not filter it",
        "set it, or have it set by what plugs the port",
        "the port's interface has no attached-mac, so nothing filters it",
        True,
    )
    RULES_MISSING = (
        "RulesMissing",
        "`iptables_hybrid`: a chain has fewer rules than the port demands",
        "look into the agent's log, and at `iptables-save`",
        "rules that the port's security groups demand are not in iptables",
        True,
    )
    RULES_SURPLUS = (
        "RulesSurplus",
        "`iptables_hybrid`: iptables holds rules of a port that is gone",
        "look into the agent's log, and at `iptables-save`",
        "iptables holds rules that the port's security groups do not demand",
        True,
    )
    IPTABLES_ERROR = (
        "IptablesError",
        "`iptables-save` or `ip6tables-save` failed: `detail` is its message",
        "fix what `detail` names",
        "the port's host could not read its iptables rules",
        True,
    )
    GROUPS_UNREADABLE = (
        "GroupsUnreadable",
        "Neutron's agent knows the port's groups only in part: one of them, or an address group "
        "of a rule, is gone from its cache. The message is the error of Neutron's code",
        "take the group off the port or the rule out of the group, or restart the agent",
        "the port's host knows its security groups only in part",
        True,
    )
    NEUTRON_UNREACHABLE = (
        "NeutronUnreachable",
        "neutron-server did not answer with the port's groups",
        "look at the message bus and the RPC server",
        "the port's host cannot reach Neutron's server",
        True,
    )
    UNKNOWN_FIREWALL_DRIVER = (
        "UnknownFirewallDriver",
        "what that driver writes is not known, so its ports are never proven",
        "use one of the drivers that the page about Neutron lists, or remove the extension from "
        "the host",
        "the firewall driver of the port's host cannot be verified",
        True,
    )


_DECLARED: Mapping[str, ErrorType] = {member.value: member for member in ErrorType}


def declared(name: str) -> ErrorType | None:
    """The type of this name; None for a name that is not declared here."""
    return _DECLARED.get(name)


def remedy(name: str) -> str:
    """What helps against an error of this name, in plain text."""
    known = declared(name)
    return (known.remedy if known else _UNEXPECTED).replace("`", "")
