"""Every option of agent_flows, registered in one place.

``etc/agent_flows.conf.sample`` is generated from here by oslo.config's
generator (entry point ``oslo.config.opts``).
"""

import re
import socket
from collections.abc import Mapping, Sequence

from oslo_config import cfg, types
from oslo_config.cfg import Opt

AGENT = "agent_flows"
SERVER = "agent_flows_server"
API = "agent_flows_api"

_FILTERED = {
    0x0800: "IPv4",
    0x0806: "ARP",
    0x8035: "RARP",
    0x86DD: "IPv6",
    0x8100: "a VLAN tag",
    0x88A8: "a VLAN tag",
}


class Ethertype(types.ConfigType):
    """An ethertype in hexadecimal, but none of those that security groups decide about."""

    def __init__(self) -> None:
        super().__init__(type_name="ethertype value")

    def __call__(self, value: object) -> int:
        text = str(value)
        if not re.fullmatch(r"0[xX][0-9a-fA-F]{4}", text):
            raise ValueError(f"{text!r} is not an ethertype as 0x88cc")
        number = int(text, 16)
        if number < 0x0600:
            raise ValueError(f"{text} is a length, not an ethertype (IEEE 802.3, 3.2.6)")
        if number in _FILTERED:
            raise ValueError(f"{text} is {_FILTERED[number]}, which cannot be permitted as a whole")
        return number

    def _formatter(self, value: int) -> str:
        return f"{value:#06x}"


class BridgeMappings(types.Dict):
    """Physical network to bridge; each has one of its own."""

    def __init__(self) -> None:
        super().__init__(type_name="bridge mappings")

    def __call__(self, value: str | Mapping[str, str]) -> dict[str, str]:
        if isinstance(value, str):
            words = [word.partition(":")[0].strip() for word in value.split(",") if word.strip()]
            if repeated := next((word for word in words if words.count(word) > 1), None):
                raise ValueError(f"physical network {repeated!r} is named twice")
        mappings: dict[str, str] = super().__call__(value)
        networks: dict[str, str] = {}
        for network, bridge in mappings.items():
            if not network or not bridge:
                raise ValueError(f"'{network}:{bridge}' is not physical_network:bridge")
            other = networks.setdefault(bridge, network)
            if other != network:
                raise ValueError(
                    f"physical networks {other} and {network} both have bridge {bridge}; give each "
                    "a bridge of its own, or its networks one name of physical network"
                )
        return mappings


AGENT_OPTS: list[Opt] = [
    cfg.HostAddressOpt(
        "host",
        default=socket.gethostname(),
        sample_default="<this host's name>",
        help="Name under which this agent reports; ports bound to it are wired here.",
    ),
    cfg.StrOpt("integration_bridge", default="br-int", help="Bridge the ports are plugged into."),
    cfg.StrOpt(
        "datapath_type",
        default="system",
        choices=[("system", "kernel datapath"), ("netdev", "userspace datapath")],
        help="Datapath of the bridges the agent creates.",
    ),
    cfg.StrOpt(
        "ovsdb_connection",
        default="unix:/run/openvswitch/db.sock",
        help="Where ovsdb-server listens.",
    ),
    cfg.StrOpt(
        "ovs_run_dir",
        default="/run/openvswitch",
        help="Run directory of ovs-vswitchd; the bridges' management sockets are there.",
    ),
    cfg.Opt(
        "bridge_mappings",
        type=BridgeMappings(),
        default={},
        help="Physical network to bridge, as physnet1:br-ex,physnet2:br-data. Each physical "
        "network needs a bridge of its own, other than the integration bridge. The bridges must "
        "exist; the agent connects them to the integration bridge by patch ports.",
    ),
    cfg.ListOpt(
        "permitted_ethertypes",
        default=[],
        item_type=Ethertype(),
        help="Ethertypes whose frames pass every port, in and out, without a rule, in hexadecimal "
        "as 0x88cc. Their sender's address is not checked.",
    ),
    cfg.IntOpt(
        "max_batch", default=500, min=1, max=5000, help="Most ports that one flow run carries."
    ),
    cfg.IntOpt("workers", default=2, min=1, max=16, help="Flows that may run at one time."),
    cfg.FloatOpt(
        "retry_initial", default=1.0, min=0.01, help="Seconds before a failed port's first retry."
    ),
    cfg.FloatOpt(
        "retry_max",
        default=60.0,
        min=0.01,
        help="Longest pause between two retries, in seconds; not less than retry_initial.",
    ),
    cfg.IntOpt("ovsdb_timeout", default=10, min=1, help="Seconds one OVSDB transaction may take."),
    cfg.IntOpt(
        "openflow_timeout", default=30, min=1, help="Seconds one call of ovs-ofctl may take."
    ),
    cfg.FloatOpt(
        "slow_flow",
        default=10.0,
        min=0.1,
        help="Seconds a flow may run before the agent reports that as its trouble.",
    ),
    cfg.IntOpt("rpc_timeout", default=30, min=1, help="Seconds the server may take to answer."),
    cfg.StrOpt(
        "state_dir",
        default="/var/lib/agent-flows",
        help="Directory of the outbox: reports are kept here until the server has them.",
    ),
    cfg.IntOpt(
        "outbox_max_reports",
        default=100_000,
        min=100,
        help="Reports kept while the server cannot be reached; beyond it superseded successes go "
        "first.",
    ),
    cfg.FloatOpt(
        "verify_timeout",
        default=30.0,
        min=0.1,
        help="Inside Neutron's agent with a firewall_driver that is not agent_flows: seconds in "
        "which that driver must have programmed a port, before the port has failed; for more than "
        "100 ports at a time, as many times more. As often, ports that stand are looked at again.",
    ),
    cfg.FloatOpt(
        "heartbeat_interval", default=10.0, min=0.1, help="Seconds between two heartbeats."
    ),
]

SERVER_OPTS: list[Opt] = [
    cfg.ListOpt(
        "required_steps",
        default=["l2", "security_groups"],
        item_type=types.String(choices=["l2", "security_groups"]),
        help="Steps that must have succeeded before a port is ACTIVE.",
    ),
    cfg.StrOpt(
        "on_refresh_failure",
        default="down",
        choices=[
            ("down", "an ACTIVE port whose refresh failed goes DOWN"),
            ("keep", "it stays ACTIVE, and OUT_OF_SYNC tells"),
        ],
        help="What a failed refresh of security groups does to an ACTIVE port.",
    ),
    cfg.FloatOpt(
        "report_timeout",
        default=60.0,
        min=0.1,
        help="Seconds after which a port whose desired state changed, or whose agent asked for "
        "its spec, is UNKNOWN without a report.",
    ),
    cfg.FloatOpt(
        "agent_down_time",
        default=35.0,
        min=0.1,
        help="Seconds without a heartbeat after which an agent is dead and its ports UNKNOWN.",
    ),
    cfg.FloatOpt(
        "agent_forget_after",
        default=7 * 24 * 3600.0,
        min=1,
        help="Seconds without a heartbeat after which an agent is forgotten if no port is bound to "
        "its host. One that comes back is known again.",
    ),
    cfg.IntOpt(
        "max_idle_agents",
        default=1000,
        min=1,
        help="Most hosts without a port that are known. Beyond it those that are silent are "
        "forgotten, and if there is none, the signs of life of further ones are refused.",
    ),
    cfg.FloatOpt(
        "database_timeout",
        default=30.0,
        min=1,
        help="Seconds a PostgreSQL or MariaDB may take to accept a connection or to answer a "
        "statement, before the request or report that waits for it fails and may be tried again.",
    ),
    cfg.FloatOpt(
        "sweep_interval",
        default=5.0,
        min=0.1,
        help="Seconds between two looks for silent agents, overdue reports and old history.",
    ),
    cfg.IntOpt("history_attempts", default=10, min=1, help="Last attempts kept of each port."),
    cfg.IntOpt("history_failures", default=100, min=1, help="Failed attempts kept of each port."),
    cfg.FloatOpt(
        "history_after_delete",
        default=7 * 24 * 3600.0,
        min=0,
        help="Seconds for which a deleted port's history is kept.",
    ),
]

API_OPTS: list[Opt] = [
    cfg.HostAddressOpt(
        "bind_host",
        default="127.0.0.1",
        help="Address the REST API listens on. Anything but loopback needs "
        "auth_strategy = keystone.",
    ),
    cfg.PortOpt("bind_port", default=9797, help="Port the REST API listens on."),
    cfg.StrOpt(
        "auth_strategy",
        default="noauth",
        choices=[
            ("noauth", "everybody who reaches the API is admin; loopback only"),
            ("keystone", "tokens are checked by keystonemiddleware, roles by oslo.policy"),
        ],
        help="Who may use the REST API.",
    ),
    cfg.IntOpt("threads", default=8, min=1, help="Requests the API answers at one time."),
    cfg.IntOpt(
        "max_connections",
        default=500,
        min=10,
        help="Connections the API holds at one time; for one more the oldest without a request in "
        "work is closed.",
    ),
    cfg.IntOpt("max_body_bytes", default=1024 * 1024, min=1024, help="Largest request body taken."),
    cfg.IntOpt("max_limit", default=1000, min=1, help="Most items one list answer carries."),
]


def list_opts() -> list[tuple[str, Sequence[Opt]]]:
    """All options by section, for oslo.config's sample generator."""
    return [(AGENT, AGENT_OPTS), (SERVER, SERVER_OPTS), (API, API_OPTS)]


def register(conf: cfg.ConfigOpts = cfg.CONF) -> cfg.ConfigOpts:
    """Register every option on ``conf``.

    The global ``CONF`` is the default because oslo.messaging reads its tracing
    options there and nowhere else.
    """
    for section, options in list_opts():
        conf.register_opts(options, group=section)
    return conf


def check(conf: cfg.ConfigOpts) -> None:
    """Raises :class:`ValueError`, in one line, for values that cannot be right together."""
    agent = conf[AGENT]
    if not agent.integration_bridge.strip():
        raise ValueError(f"[{AGENT}] integration_bridge is empty; name the bridge, as br-int")
    for network, bridge in agent.bridge_mappings.items():
        if bridge == agent.integration_bridge:
            raise ValueError(
                f"[{AGENT}] bridge_mappings gives physical network {network} the integration "
                f"bridge {bridge}; name the bridge that has the physical network's interface"
            )
    if agent.retry_initial > agent.retry_max:
        raise ValueError(
            f"[{AGENT}] retry_initial ({agent.retry_initial:g} s) is longer than retry_max "
            f"({agent.retry_max:g} s); retry_max is the longest pause"
        )


def check_together(conf: cfg.ConfigOpts) -> None:
    """The same for an agent and a server that share one configuration."""
    interval, patience = conf[AGENT].heartbeat_interval, conf[SERVER].agent_down_time
    if interval >= patience:
        raise ValueError(
            f"[{AGENT}] heartbeat_interval ({interval:g} s) is not shorter than [{SERVER}] "
            f"agent_down_time ({patience:g} s): the agent would count as dead between two "
            "heartbeats"
        )
