"""Every option of agent_flows, registered in one place.

``etc/agent_flows.conf.sample`` is generated from here by oslo.config's
generator (entry point ``oslo.config.opts``).
"""

import re
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from oslo_config import cfg, types
from oslo_config.cfg import Opt

AGENT = "agent_flows"
SERVER = "agent_flows_server"
API = "agent_flows_api"
TRACING = "agent_flows_tracing"

_FILTERED = {
    0x0800: "IPv4",
    0x0806: "ARP",
    0x8035: "RARP",
    0x86DD: "IPv6",
    0x8100: "a VLAN tag",
    0x88A8: "a VLAN tag",
}


class Ethertype(types.ConfigType):
    """An ethertype in hexadecimal, except those that security groups filter."""

    def __init__(self) -> None:
        super().__init__(type_name="ethertype value")

    def __call__(self, value: object) -> int:
        text = str(value)
        if not re.fullmatch(r"0[xX][0-9a-fA-F]{4}", text):
            raise ValueError(f"{text!r} is not an ethertype such as 0x88cc")
        number = int(text, 16)
        if number < 0x0600:
            raise ValueError(f"{text} is a length, not an ethertype (IEEE 802.3, 3.2.6)")
        if number in _FILTERED:
            raise ValueError(f"{text} is {_FILTERED[number]}, which security groups filter")
        return number

    def _formatter(self, value: int) -> str:
        return f"{value:#06x}"


class BridgeMappings(types.Dict):
    """Physical network to bridge; each network has its own bridge."""

    def __init__(self) -> None:
        super().__init__(type_name="bridge mappings")

    def __call__(self, value: str | Mapping[str, str]) -> dict[str, str]:
        if isinstance(value, str):
            names = [pair.partition(":")[0].strip() for pair in value.split(",") if pair.strip()]
            if repeated := next((name for name in names if names.count(name) > 1), None):
                raise ValueError(f"physical network {repeated!r} is there twice")
        mappings: dict[str, str] = super().__call__(value)
        networks: dict[str, str] = {}
        for network, bridge in mappings.items():
            if not network or not bridge:
                raise ValueError(f"'{network}:{bridge}' is not physical_network:bridge")
            other = networks.setdefault(bridge, network)
            if other != network:
                raise ValueError(
                    f"physical networks {other} and {network} both have bridge {bridge}; give each "
                    "its own bridge, or use one name for both"
                )
        return mappings


_OVSDB_TLS_FILES = ("ovsdb_ssl_key_file", "ovsdb_ssl_cert_file", "ovsdb_ssl_ca_cert_file")

AGENT_OPTS: list[Opt] = [
    cfg.HostAddressOpt(
        "host",
        default=socket.gethostname(),
        sample_default="<this host's name>",
        help="Host name in the agent's reports; the agent wires the ports bound to this host.",
    ),
    cfg.StrOpt(
        "integration_bridge", default="br-int", help="Bridge that the ports are plugged into."
    ),
    cfg.StrOpt(
        "datapath_type",
        default="system",
        choices=[("system", "kernel datapath"), ("netdev", "userspace datapath")],
        help="Datapath of the bridges that the agent creates.",
    ),
    cfg.StrOpt(
        "ovsdb_connection",
        default="unix:/run/openvswitch/db.sock",
        help="Address of ovsdb-server: unix:<path>, tcp:<ip>:<port>, or ssl:<ip>:<port> with the "
        "three files below.",
    ),
    cfg.StrOpt(
        "ovsdb_ssl_key_file", default="", help="File of the private key for ovsdb-server by TLS."
    ),
    cfg.StrOpt(
        "ovsdb_ssl_cert_file", default="", help="File of the certificate of that private key."
    ),
    cfg.StrOpt(
        "ovsdb_ssl_ca_cert_file",
        default="",
        help="File of the certificate authority that signed ovsdb-server's certificate.",
    ),
    cfg.StrOpt(
        "ovs_run_dir",
        default="/run/openvswitch",
        help="Run directory of ovs-vswitchd, with the management sockets of the bridges.",
    ),
    cfg.Opt(
        "bridge_mappings",
        type=BridgeMappings(),
        default={},
        help="Bridge of each physical network, as physnet1:br-ex,physnet2:br-data. Each physical "
        "network needs its own bridge, other than the integration bridge. The bridges must exist; "
        "the agent connects them to the integration bridge with patch ports.",
    ),
    cfg.ListOpt(
        "permitted_ethertypes",
        default=[],
        item_type=Ethertype(),
        help="Ethertypes in hexadecimal, as 0x88cc, whose frames pass every port in both "
        "directions without a rule. Their source address is not checked.",
    ),
    cfg.IntOpt(
        "max_batch", default=500, min=1, max=5000, help="Largest number of ports in one flow run."
    ),
    cfg.IntOpt("workers", default=2, min=1, max=16, help="Flows that may run at the same time."),
    cfg.FloatOpt(
        "retry_initial",
        default=1.0,
        min=0.01,
        help="Seconds before the first retry of a failed port.",
    ),
    cfg.FloatOpt(
        "retry_max",
        default=60.0,
        min=0.01,
        help="Longest pause between two retries in seconds; not less than retry_initial.",
    ),
    cfg.IntOpt(
        "ovsdb_timeout", default=10, min=1, help="Timeout of one OVSDB transaction in seconds."
    ),
    cfg.IntOpt(
        "openflow_timeout", default=30, min=1, help="Timeout of one call of ovs-ofctl in seconds."
    ),
    cfg.FloatOpt(
        "audit_interval",
        default=60.0,
        min=0.1,
        help="Seconds between two comparisons of everything in the switch with what was proven. "
        "Most changes by other programs are found at once; this finds the rest.",
    ),
    cfg.BoolOpt(
        "remove_strange_flows",
        default=True,
        help="Remove flows of other programs from the integration bridge. If not, they are only "
        "reported, and ports they decide about fail. Inside Neutron they are never removed.",
    ),
    cfg.FloatOpt(
        "slow_flow",
        default=10.0,
        min=0.1,
        help="Seconds after which the agent reports a flow that is still running as its trouble.",
    ),
    cfg.IntOpt(
        "rpc_timeout", default=30, min=1, help="Timeout of a call to the server in seconds."
    ),
    cfg.StrOpt(
        "state_dir",
        default="/var/lib/agent-flows",
        help="Directory of the outbox, which keeps reports until the server acknowledges them. "
        "Inside Neutron the default is the directory agent-flows in Neutron's state_path.",
    ),
    cfg.FloatOpt(
        "host_key_lifetime",
        default=90.0,
        min=0,
        help="Days after which the key in state_dir that signs the agent's calls is replaced, at "
        "the agent's next start; 0 replaces it never.",
    ),
    cfg.IntOpt(
        "outbox_max_reports",
        default=100_000,
        min=100,
        help="Reports kept while the server cannot be reached; beyond that, superseded successes "
        "are dropped first.",
    ),
    cfg.FloatOpt(
        "verify_timeout",
        default=30.0,
        min=0.1,
        help="Only inside Neutron's agent with a firewall_driver other than agent_flows: seconds "
        "after which a port that the driver has not programmed has failed; n times as many for n "
        "times 100 new ports. Programmed ports are verified again at this interval.",
    ),
    cfg.FloatOpt(
        "heartbeat_interval", default=10.0, min=0.1, help="Interval of heartbeats in seconds."
    ),
    cfg.PortOpt(
        "metrics_port",
        default=0,
        help="Port of 127.0.0.1 on which Prometheus reads the agent's metrics; 0 serves none.",
    ),
]

SERVER_OPTS: list[Opt] = [
    cfg.IntOpt(
        "workers",
        default=1,
        min=1,
        max=64,
        help="Processes of agent-flows-server, which share its queue and its API. More than one "
        "need PostgreSQL or MariaDB. The all-in-one is always one process.",
    ),
    cfg.ListOpt(
        "required_steps",
        default=["l2", "security_groups"],
        item_type=types.String(choices=["l2", "security_groups"]),
        help="Steps that must succeed before a port becomes ACTIVE.",
    ),
    cfg.StrOpt(
        "on_refresh_failure",
        default="down",
        choices=[
            ("down", "an ACTIVE port whose refresh failed goes DOWN"),
            ("keep", "it stays ACTIVE with sync state OUT_OF_SYNC"),
        ],
        help="Effect of a failed refresh of security groups on an ACTIVE port.",
    ),
    cfg.FloatOpt(
        "report_timeout",
        default=60.0,
        min=0.1,
        help="Seconds without a report after which a port is UNKNOWN; counted from a change of "
        "its desired state, or from the agent's request for its spec.",
    ),
    cfg.FloatOpt(
        "agent_down_time",
        default=35.0,
        min=0.1,
        help="Seconds without a heartbeat after which an agent is down and its ports are UNKNOWN.",
    ),
    cfg.FloatOpt(
        "agent_forget_after",
        default=7 * 24 * 3600.0,
        min=1,
        help="Seconds without a heartbeat after which an agent is deleted if no port is bound to "
        "its host. The next heartbeat adds it again.",
    ),
    cfg.IntOpt(
        "max_idle_agents",
        default=1000,
        min=1,
        help="Largest number of agents on hosts without a port. Beyond that, those without a "
        "recent heartbeat are deleted; if there are none, heartbeats of further hosts are refused.",
    ),
    cfg.BoolOpt(
        "strict_host_keys",
        default=False,
        help="Whether only the key that first signed a call for a host ever speaks for it. By "
        "default another agent may while the host's own is silent for agent_down_time, and is "
        "shown. A host that is installed again then needs agent-flows-manage host-key forget.",
    ),
    cfg.FloatOpt(
        "database_timeout",
        default=30.0,
        min=1,
        help="Timeout of a connection to PostgreSQL or MariaDB, and of a statement, in seconds. "
        "The request or report that waits for it fails and may be tried again.",
    ),
    cfg.FloatOpt(
        "sweep_interval",
        default=5.0,
        min=0.1,
        help="Interval in seconds of checks for agents that are down, overdue reports and old "
        "history.",
    ),
    cfg.PortOpt(
        "metrics_port",
        default=0,
        help="Only inside Neutron's server: first port of 127.0.0.1 on which Prometheus reads "
        "metrics; 0 serves none. Each RPC worker takes the first of 64 ports that is free.",
    ),
    cfg.IntOpt("history_attempts", default=10, min=1, help="Latest attempts kept for each port."),
    cfg.IntOpt("history_failures", default=100, min=1, help="Failed attempts kept for each port."),
    cfg.FloatOpt(
        "history_after_delete",
        default=7 * 24 * 3600.0,
        min=0,
        help="Seconds that the history of a deleted port is kept.",
    ),
]

API_OPTS: list[Opt] = [
    cfg.HostAddressOpt(
        "bind_host",
        default="127.0.0.1",
        help="Address of the REST API. Any address other than loopback needs auth_strategy = "
        "keystone.",
    ),
    cfg.PortOpt("bind_port", default=9797, help="Port of the REST API."),
    cfg.StrOpt(
        "auth_strategy",
        default="noauth",
        choices=[
            ("noauth", "every client is admin; only on loopback"),
            ("keystone", "keystonemiddleware checks tokens, oslo.policy checks roles"),
        ],
        help="Authentication of the REST API.",
    ),
    cfg.IntOpt("threads", default=8, min=1, help="Requests that the API handles at the same time."),
    cfg.IntOpt(
        "max_connections",
        default=500,
        min=10,
        help="Largest number of open connections to the API. For a further one, the oldest idle "
        "connection is closed.",
    ),
    cfg.IntOpt(
        "max_body_bytes", default=4 * 1024 * 1024, min=1024, help="Largest request body in bytes."
    ),
    cfg.IntOpt(
        "max_objects",
        default=5000,
        min=1,
        max=10_000,
        help="Largest number of objects in one request that writes several. They are written in "
        "one transaction, for which other writers wait.",
    ),
    cfg.IntOpt("max_limit", default=1000, min=1, help="Largest number of items in one list."),
]


TRACING_OPTS: list[Opt] = [
    cfg.BoolOpt(
        "enabled",
        default=False,
        help="Send spans of flows, tasks and of the gate to OpenTelemetry. Needs the packages of "
        "the extra tracing.",
    ),
    cfg.URIOpt(
        "endpoint",
        default="http://127.0.0.1:4318",
        schemes=["http", "https"],
        help="Where spans are sent, by OTLP over HTTP. The environment variables of OpenTelemetry "
        "decide the rest, as OTEL_TRACES_SAMPLER. In a process that has traces of its own, such as "
        "Neutron's, spans go where those go.",
    ),
]


def list_opts() -> list[tuple[str, Sequence[Opt]]]:
    """All options by section, for oslo.config's sample generator."""
    return [(AGENT, AGENT_OPTS), (SERVER, SERVER_OPTS), (API, API_OPTS), (TRACING, TRACING_OPTS)]


def register(conf: cfg.ConfigOpts = cfg.CONF) -> cfg.ConfigOpts:
    """Register every option on ``conf``.

    The global ``CONF`` is the default because oslo.messaging reads its tracing
    options there and nowhere else.
    """
    for section, options in list_opts():
        conf.register_opts(options, group=section)
    return conf


def read_every(conf: cfg.ConfigOpts) -> None:
    """Validate all values: oslo.config validates a value when it is first read.

    Raises :class:`cfg.Error` or ValueError.
    """
    for section, opts in list_opts():
        for opt in opts:
            conf[section][opt.dest]
    check(conf)


Sections = Mapping[str, Mapping[str, Sequence[str]]]
"""The values in configuration files, by section and name, without interpretation."""


def in_files(conf: cfg.ConfigOpts) -> Sections:
    """What the configuration files of ``conf`` contain, also options that are not registered.

    Raises OSError or :class:`oslo_config.iniparser.ParseError`.
    """
    sections: dict[str, dict[str, list[str]]] = {}
    directories = [Path(name) for name in conf.config_dir or ()]
    files = [file for each in directories for file in sorted(each.glob("*.conf"))]
    for file in (*conf.config_file, *files):
        cfg.ConfigParser(str(file), sections).parse()
    return sections


def unknown(sections: Sections) -> list[str]:
    """The options in our sections that this release does not have, as ``[section] name``."""
    found: list[str] = []
    for section, opts in list_opts():
        names = {opt.dest for opt in opts}
        names |= {
            old.name.replace("-", "_") for opt in opts for old in opt.deprecated_opts if old.name
        }
        found += [
            f"[{section}] {name}"
            for name in sections.get(section, ())
            if name.replace("-", "_") not in names
        ]
    return found


def check(conf: cfg.ConfigOpts) -> None:
    """Raises :class:`ValueError` with one line for options that contradict each other."""
    agent = conf[AGENT]
    if not agent.integration_bridge.strip():
        raise ValueError(f"[{AGENT}] integration_bridge is empty; set it to the bridge, as br-int")
    for network, bridge in agent.bridge_mappings.items():
        if bridge == agent.integration_bridge:
            raise ValueError(
                f"[{AGENT}] bridge_mappings maps physical network {network} to the integration "
                f"bridge {bridge}; use the bridge that has the physical network's interface"
            )
    _check_tls_files(agent)
    if agent.retry_initial > agent.retry_max:
        raise ValueError(
            f"[{AGENT}] retry_initial ({agent.retry_initial:g} s) is longer than retry_max "
            f"({agent.retry_max:g} s); retry_max is the longest pause"
        )


def ovsdb_tls(agent: cfg.ConfigOpts.GroupAttr) -> tuple[str, str, str] | None:
    """The files of key, certificate and authority for ovsdb-server; None without TLS."""
    if not agent.ovsdb_connection.startswith("ssl:"):
        return None
    key, certificate, ca = (agent[name] for name in _OVSDB_TLS_FILES)
    return key, certificate, ca


def _check_tls_files(agent: cfg.ConfigOpts.GroupAttr) -> None:
    """The library of Open vSwitch would fail with the first connection, without the file's name."""
    for name in _OVSDB_TLS_FILES if ovsdb_tls(agent) else ():
        try:
            with open(agent[name], "rb"):
                continue
        except OSError as exc:
            given = f"cannot be read: {exc.strerror}" if agent[name] else "is not set"
            raise ValueError(
                f"[{AGENT}] {name} {given}; ovsdb_connection {agent.ovsdb_connection} needs "
                "the files of a private key, its certificate, and the certificate authority"
            ) from exc


def check_together(conf: cfg.ConfigOpts) -> None:
    """Like :func:`check`, for an agent and a server with one configuration."""
    interval, patience = conf[AGENT].heartbeat_interval, conf[SERVER].agent_down_time
    if interval >= patience:
        raise ValueError(
            f"[{AGENT}] heartbeat_interval ({interval:g} s) is not shorter than [{SERVER}] "
            f"agent_down_time ({patience:g} s): the agent would be down between two heartbeats"
        )
