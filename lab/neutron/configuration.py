"""The configuration files of Neutron's programs."""

import configparser
import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path

from lab.neutron.nova import NOVA_PORT

Sections = Mapping[str, Mapping[str, object]]

API_PORT = 9696
SERVER_FILE = "server.conf"
AGENT_FILE = "agent.conf"
PHYSICAL_NETWORK = "physnet1"
PHYSICAL_BRIDGE = "br-phys"
# Every part of Neutron that may become root for a moment does so in a helper of its own.
_PRIVSEP_CONTEXTS = (
    "privsep",
    "privsep_conntrack",
    "privsep_dhcp_release",
    "privsep_link",
    "privsep_namespace",
    "privsep_ovs_vsctl",
)


@dataclasses.dataclass(frozen=True)
class AgentOptions:
    """How one host's Open vSwitch agent is configured; ``extra`` is added section by section.

    ``launcher``: the command that runs it, with the agent's own as arguments.
    """

    firewall_driver: str = "openvswitch"
    extensions: tuple[str, ...] = ()
    extra: Sections = dataclasses.field(default_factory=dict)
    launcher: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Options:
    """What a Neutron is made of: its compute hosts, and what the server loads."""

    hosts: Mapping[str, AgentOptions] = dataclasses.field(
        default_factory=lambda: {"compute-1": AgentOptions()}
    )
    mechanism_drivers: tuple[str, ...] = ("openvswitch",)
    service_plugins: tuple[str, ...] = ()
    nova: bool = False
    """Whether it sends events to Nova (lab.neutron.nova)."""
    extra: Sections = dataclasses.field(default_factory=dict)


_OURS = "agent_flows"


def with_agent_flows(*hosts: str, agent_flows: Mapping[str, object] | None = None) -> Options:
    """A Neutron with all of our parts: in its server, and in the agents of ``hosts``.

    ``agent_flows`` is added to that section of the agents' files.
    """
    agent = AgentOptions(_OURS, (_OURS,), {_OURS: agent_flows or {}})
    return Options(
        hosts=dict.fromkeys(hosts, agent),
        mechanism_drivers=(*Options().mechanism_drivers, _OURS),
        service_plugins=(_OURS,),
    )


@dataclasses.dataclass(frozen=True)
class Paths:
    """Of a program: the directory of its files, where Neutron's programs are installed, and
    the URL of the message bus."""

    place: Path
    programs: Path
    bus: str


def server_file(options: Options, paths: Paths, database: str) -> str:
    """neutron.conf and ml2_conf.ini in one, for the API, the RPC server and the migrations.

    ``database`` is SQLAlchemy's URL.
    """
    own: Sections = {
        "DEFAULT": {
            **_common(paths),
            "auth_strategy": "noauth",
            "core_plugin": "ml2",
            "service_plugins": ",".join(options.service_plugins),
            "api_paste_config": paths.programs.parent / "etc" / "neutron" / "api-paste.ini",
            "notify_nova_on_port_status_changes": options.nova,
            "notify_nova_on_port_data_changes": options.nova,
            "dhcp_agent_notification": False,
            "rpc_workers": 1,
            "rpc_state_report_workers": 1,
        },
        # As "none" of keystoneauth, which asks no keystone.
        "nova": {"auth_type": "none", "endpoint": f"http://127.0.0.1:{NOVA_PORT}/v2.1"},
        "database": {"connection": f"{database}&charset=utf8"},
        "quotas": {
            f"quota_{kind}": -1
            for kind in ("network", "subnet", "port", "security_group", "security_group_rule")
        },
        "ml2": {
            "mechanism_drivers": ",".join(options.mechanism_drivers),
            "type_drivers": "local,flat,vlan,vxlan",
            "tenant_network_types": "vxlan",
            "extension_drivers": "port_security",
        },
        "ml2_type_flat": {"flat_networks": PHYSICAL_NETWORK},
        "ml2_type_vlan": {"network_vlan_ranges": f"{PHYSICAL_NETWORK}:100:999"},
        "ml2_type_vxlan": {"vni_ranges": "1000:9999"},
        **_privsep(paths, SERVER_FILE),
    }
    return _text(own, options.extra)


def agent_file(
    options: AgentOptions, paths: Paths, host: str, *, ovs_run_dir: Path, local_ip: str
) -> str:
    """The Open vSwitch agent's file; its tunnels end at ``local_ip``."""
    own: Sections = {
        "DEFAULT": {**_common(paths), "host": host},
        "ovs": {
            "datapath_type": "netdev",
            "local_ip": local_ip,
            "ovsdb_connection": f"unix:{ovs_run_dir}/db.sock",
            "of_listen_address": "127.0.0.1",
            "bridge_mappings": f"{PHYSICAL_NETWORK}:{PHYSICAL_BRIDGE}",
        },
        "agent": {
            "root_helper": "",
            "tunnel_types": "vxlan",
            "extensions": ",".join(options.extensions),
        },
        "securitygroup": {"firewall_driver": options.firewall_driver},
        "agent_flows": {"ovs_run_dir": ovs_run_dir},
        **_privsep(paths, AGENT_FILE),
    }
    return _text(own, options.extra)


def service_agent_file(
    extra: Sections, paths: Paths, file: str, host: str, ovs_run_dir: Path
) -> str:
    """The file of a DHCP or L3 agent; ``file`` is its name in ``paths.place``."""
    own: Sections = {
        "DEFAULT": {
            **_common(paths),
            "host": host,
            "interface_driver": "openvswitch",
            # It serves what Nova knows of a machine, and there is no Nova.
            "enable_metadata_proxy": False,
        },
        "ovs": {"ovsdb_connection": f"unix:{ovs_run_dir}/db.sock"},
        "agent": {"root_helper": ""},
        **_privsep(paths, file),
    }
    return _text(own, extra)


def _common(paths: Paths) -> Mapping[str, object]:
    return {"transport_url": paths.bus, "state_path": paths.place, "use_stderr": True}


def _privsep(paths: Paths, file: str) -> Sections:
    command = f"{paths.programs / 'privsep-helper'} --config-file {paths.place / file}"
    helpers = {context: {"helper_command": command} for context in _PRIVSEP_CONTEXTS}
    return {**helpers, "oslo_concurrency": {"lock_path": paths.place / "lock"}}


def _text(own: Sections, extra: Sections) -> str:
    parser = configparser.ConfigParser(interpolation=None)
    for sections in (own, extra):
        for section, values in sections.items():
            if not parser.has_section(section) and section != parser.default_section:
                parser.add_section(section)
            for name, value in values.items():
                parser.set(section, name, str(value))
    out = io.StringIO()
    parser.write(out)
    return out.getvalue()
