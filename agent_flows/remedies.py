"""The types of errors a task may have: their causes, and what helps.

One table, for the API, which tells people what to do about a port, and for the
page of the documentation that is generated from it.
"""

import dataclasses
from collections.abc import Iterator, Sequence


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Of ``types`` of errors the ``cause`` and the ``remedy``, in Markdown without links."""

    types: tuple[str, ...]
    cause: str
    remedy: str


def _of(types: str, cause: str, remedy: str) -> Explanation:
    return Explanation(tuple(types.split()), cause, remedy)


EXPLANATIONS: Sequence[Explanation] = (
    _of(
        "InterfaceNotFound",
        "no interface on the integration bridge names the port. Inside Neutron with our firewall "
        "driver such a port is unwired and ABSENT instead",
        "plug it, or correct the interface's `external_ids:iface-id`",
    ),
    _of(
        "InterfaceError",
        "Open vSwitch cannot use the interface; the message is its `error` column: mostly the "
        "device does not exist",
        "have the device made by what plugs the port (`ip link` shows those there are), or take "
        "the interface out of the bridge",
    ),
    _of(
        "NoOfport",
        "Open vSwitch has not numbered the interface yet",
        "wait for the retry; `ovs-vsctl show` on the host tells why not",
    ),
    _of(
        "InterfaceChanged",
        "the interface was unplugged or plugged anew meanwhile",
        "wait for the retry",
    ),
    _of(
        "LinkNotFound LinkRefused LinkDown LinkMtu",
        "the kernel's link is gone, refuses the network's MTU, or was changed by somebody else",
        "look at the link on the host: `ip link show`",
    ),
    _of(
        "UnknownPhysicalNetwork BridgeNotFound",
        "`bridge_mappings` of the host does not name the network's `physical_network`, or its "
        "bridge does not exist; the message names it. An integration bridge that does not exist is "
        "made again by the agent",
        "add the physical network to `bridge_mappings` of the port's host and restart its agent, "
        "or make the bridge",
    ),
    _of(
        "BridgeMissing",
        "the host's integration bridge is gone",
        "find out who deleted it; the agent makes it anew and wires every port again",
    ),
    _of(
        "BridgeChanged",
        "somebody else changes the integration bridge again and again while the agent mends it",
        "find out who: two agents, or another controller on the bridge",
    ),
    _of(
        "PatchPort",
        "Open vSwitch gave a patch port between the integration bridge and the physical "
        "network's no number",
        "look into the log of ovs-vswitchd",
    ),
    _of(
        "SegmentInUse",
        "another network has the same segment on the host",
        "give one of the two networks another segment",
    ),
    _of(
        "NoLocalVlan",
        "more than 4094 networks on the host",
        "move ports of some networks to other hosts",
    ),
    _of(
        "WrongTag",
        "somebody else changed the port's tag",
        "find out who; a resync sets it again",
    ),
    _of(
        "NoTag",
        "inside Neutron: the OVS agent has not bound the interface to a local VLAN (Port, "
        "`other_config:tag`); the port is closed until then",
        "look into the log of the OVS agent",
    ),
    _of(
        "QuarantineFailed",
        "inside Neutron: the switch refused the flows that keep a port closed until it is "
        "verified, or their removal: `detail` is what it said",
        "mend what `detail` names",
    ),
    _of(
        "FlowRefused",
        "the switch refused a flow: `detail` has the flow and the OpenFlow error, as a table that "
        "is full (`OFPFMFC_TABLE_FULL`)",
        "mend what `detail` names: for a full table raise its `flow_limit`",
    ),
    _of(
        "Unsupported",
        "no OpenFlow flow can carry what a rule or address asks for; the message names it, with "
        "its group",
        "change that rule or address",
    ),
    _of(
        "Conflict",
        "the port has stateful and stateless groups at once, or another interface claims to be "
        "the same port",
        "give the port groups of one kind; unplug the interface that should not have the port's "
        "`external_ids:iface-id`",
    ),
    _of(
        "MissingSpec",
        "the server named a group that a port or a rule refers to, but not what is in it",
        "wait for the retry; if it stays, it is a defect worth reporting",
    ),
    _of(
        "InvalidSpec",
        "the server sent an invalid spec of a port, a group or a rule; the message names the "
        "field and what would be right, the detail shows it. The port keeps what it has; others "
        "are not touched. Inside Neutron a single rule, member, address pair or fixed IP that "
        "cannot be used is left out instead, and named in the agent's log",
        "change what the message names",
    ),
    _of(
        "NotAsCompiled",
        "the switch does not hold the flows that were written, because somebody else changed, "
        "removed or added some: `detail` has them. The agent had put them right, and they "
        "differed again at the second look",
        "find out who writes them; the retry puts them right again",
    ),
    _of(
        "StrangersFlow",
        "a flow that neither agent_flows nor a known owner wrote decides about the port's packets: "
        "`detail` has it in full. On the standalone agent's bridge such flows are removed, so this "
        "one came back at once; inside Neutron they are left alone",
        "remove the flow, or have its owner reserve its cookie (`OVSCookieBridge`); the retry then "
        "succeeds",
    ),
    _of(
        "SwitchError OvsdbError",
        "ovs-ofctl or OVSDB refused something else: `detail` is what it said",
        "mend what `detail` names",
    ),
    _of(
        "SwitchUnreachable",
        "the bridge's management socket does not answer",
        "look on the host whether ovs-vswitchd runs and `ovs_run_dir` is right",
    ),
    _of(
        "ToolMissing",
        "the agent cannot run `ovs-ofctl`",
        "install Open vSwitch's tools on the host, and have `ovs-ofctl` in the agent's PATH",
    ),
    _of(
        "OSError FileNotFoundError PermissionError MemoryError",
        "the host has run out of something (memory, open files, processes), or a file or tool is "
        "missing: the message says of what",
        "mend it on the host; the agent tries again",
    ),
    _of(
        "Timeout",
        "no answer within `openflow_timeout` or `ovsdb_timeout`; a call of `ovs-ofctl` that does "
        "not end by itself is killed a second later",
        "look at the load of ovs-vswitchd and ovsdb-server on the host",
    ),
    _of(
        "RevertFailed",
        "a task that should be undone could not be; the port stays closed or with its previous "
        "rules",
        "mend what `detail` names; the agent tries again",
    ),
    _of(
        "AgentSilent",
        "the server's own: no heartbeat (in Neutron: no state report of the OVS agent) for "
        "`agent_down_time`",
        "start the agent; what it wired keeps working meanwhile",
    ),
    _of(
        "AgentNeverSeen",
        "the server's own: no agent ever reported as the host that the port is bound to",
        "start an agent there, or correct `binding:host_id`: it is the `host` of an agent",
    ),
    _of(
        "ReportOverdue",
        "the server's own: the agent lives, and did not report within `report_timeout`",
        "look at the agent's troubles and into its log",
    ),
)

OF_OTHER_DRIVERS: Sequence[Explanation] = (
    _of(
        "FlowsMissing",
        "`openvswitch`: flows that the port's rules demand are not there, or do something else. "
        "The message counts them by table, the detail names the first 20",
        "the agent's log says what the switch refused; mend that, then the next change of a rule "
        "or a restart of the agent has Neutron's driver write again",
    ),
    _of(
        "FlowsSurplus",
        "`openvswitch`: flows stand that no rule demands, or that belong to a port that is gone: "
        "something may pass that should not. The detail names the first 20",
        "restart the agent, which removes what is stale",
    ),
    _of(
        "NoAttachedMac",
        "the interface has no `external_ids:attached-mac`, so Neutron's driver does not filter it",
        "set it, or have it set by what plugs the port",
    ),
    _of(
        "RulesMissing RulesSurplus",
        "`iptables_hybrid`: a chain has fewer rules than the port demands, or rules are left of a "
        "port that is gone",
        "look into the agent's log, and at `iptables-save`",
    ),
    _of(
        "IptablesError",
        "`iptables-save` or `ip6tables-save` failed: `detail` is what was said",
        "mend what `detail` names",
    ),
    _of(
        "GroupsUnreadable",
        "Neutron's agent knows the port's groups only in part: one of them, or an address group "
        "that a rule names, is gone from its cache. The message is what Neutron's code raised",
        "take the group off the port or the rule out of the group, or restart the agent",
    ),
    _of(
        "NeutronUnreachable",
        "neutron-server did not tell the port's groups",
        "look at the message bus and the RPC server",
    ),
    _of(
        "UnknownFirewallDriver",
        "what that driver leaves is not known, so its ports are never proven",
        "use one of the drivers that the page about Neutron lists, or take the extension off the "
        "host",
    ),
)

_REMEDIES = {
    type_: each.remedy for each in (*EXPLANATIONS, *OF_OTHER_DRIVERS) for type_ in each.types
}


def of(error_type: str) -> str:
    """What helps against an error of this type, in plain text."""
    unforeseen = "nobody foresaw this error; its detail has the traceback: report it as a defect"
    return _REMEDIES.get(error_type, unforeseen).replace("`", "")


def page() -> Iterator[str]:
    """The lines of the documentation's tables."""
    yield from _table(EXPLANATIONS)
    yield ""
    yield "In Neutron with a firewall driver that is not ours:"
    yield ""
    yield from _table(OF_OTHER_DRIVERS)


def _table(explanations: Sequence[Explanation]) -> Iterator[str]:
    yield "| type | the cause | what helps |"
    yield "|---|---|---|"
    for each in explanations:
        types = ", ".join(f"`{type_}`" for type_ in each.types)
        yield f"| {types} | {each.cause} | {each.remedy} |"
