"""The inspector for the firewall driver that the agent loads."""

from typing import Any

from neutron.agent import firewall
from neutron.agent.linux.iptables_firewall import OVSHybridIptablesFirewallDriver
from neutron.agent.linux.openvswitch_firewall import OVSFirewallDriver
from oslo_config import cfg

from agent_flows import conf as options
from agent_flows.neutron import privileged
from agent_flows.neutron.resource_cache import SecurityGroupInfo
from agent_flows.neutron.verify.inspector import Inspector, NoFirewall, UnknownFirewall
from agent_flows.neutron.verify.iptables import IptablesInspector
from agent_flows.neutron.verify.openvswitch import OpenvswitchInspector
from agent_flows.openflow.ofctl import Ofctl
from agent_flows.watchdog import Watch, unwatched


def configured(
    conf: cfg.ConfigOpts, bridge: Any, cache: Any, watch: Watch = unwatched
) -> Inspector:
    """The inspector for the driver that ``[securitygroup]`` names. ``bridge`` is the agent's
    integration bridge, ``cache`` its RemoteResourceCache; ``watch`` watches calls of ovs-ofctl.

    Raises ImportError for a driver that cannot be loaded.
    """
    ours = conf[options.AGENT]
    if not conf.SECURITYGROUP.enable_security_group:
        return NoFirewall("enable_security_group = false")
    name = conf.SECURITYGROUP.firewall_driver or "noop"
    kind = firewall.load_firewall_driver_class(name)
    if kind is firewall.NoopFirewallDriver:
        return NoFirewall(f"firewall_driver = {name}")
    # Not classes derived from them: those may install something else.
    if kind is OVSFirewallDriver:
        ofctl = Ofctl(
            ours.ovs_run_dir,
            bridge.br_name,
            ours.openflow_timeout,
            privileged.execute,
            watch=watch,
        )
        return OpenvswitchInspector(bridge, ofctl, SecurityGroupInfo(cache))
    if kind is OVSHybridIptablesFirewallDriver:
        return IptablesInspector(SecurityGroupInfo(cache), ours.openflow_timeout)
    return UnknownFirewall(name)
