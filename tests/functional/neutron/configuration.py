"""The agent's configuration, as neutron.conf and openvswitch_agent.ini would have it."""

from neutron.common import config
from neutron.conf.agent import securitygroups_rpc
from neutron.plugins.ml2.drivers.openvswitch.agent.common import config as _agent  # noqa: F401
from oslo_config import cfg

from agent_flows import conf as options


def configure(database: str, run_dir: str) -> None:
    """Set up the global configuration of this process."""
    config.register_common_config_options()
    securitygroups_rpc.register_securitygroups_opts()
    options.register(cfg.CONF)
    cfg.CONF([], project="neutron", default_config_files=[])
    cfg.CONF.set_override("host", "compute-1")
    cfg.CONF.set_override("ovsdb_connection", database, "OVS")
    cfg.CONF.set_override("firewall_driver", "agent_flows", "SECURITYGROUP")
    cfg.CONF.set_override("permitted_ethertypes", ["0x4000"], "SECURITYGROUP")
    cfg.CONF.set_override("ovs_run_dir", run_dir, options.AGENT)
    cfg.CONF.set_override("retry_initial", 0.2, options.AGENT)
