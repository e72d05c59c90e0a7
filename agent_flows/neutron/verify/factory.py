"""Which firewall driver the agent has, and what is known of it."""

from typing import Any

from neutron.agent import firewall
from neutron.agent.linux.iptables_firewall import OVSHybridIptablesFirewallDriver
from neutron.agent.linux.openvswitch_firewall import OVSFirewallDriver
from oslo_config import cfg

from agent_flows import conf as options
from agent_flows.neutron import privileged
from agent_flows.neutron.resource_cache import SecurityGroupInfo
from agent_flows.neutron.verify.driver import NoFirewall, OtherDriver, UnknownFirewall
from agent_flows.neutron.verify.iptables import HybridFirewall
from agent_flows.neutron.verify.openvswitch import OpenvswitchFirewall
from agent_flows.openflow.ofctl import Ofctl
from agent_flows.watchdog import Watch, unwatched


def configured(
    conf: cfg.ConfigOpts, bridge: Any, cache: Any, watch: Watch = unwatched
) -> OtherDriver:
    """What to expect of the driver that ``[securitygroup]`` names. ``bridge`` is the agent's
    integration bridge, ``cache`` its RemoteResourceCache; ``watch`` watches calls of ovs-ofctl.

    Raises ImportError for a driver that the agent could not load either.
    """
    ours = conf[options.AGENT]
    if not conf.SECURITYGROUP.enable_security_group:
        return NoFirewall("enable_security_group = false")
    name = conf.SECURITYGROUP.firewall_driver or "noop"
    kind = firewall.load_firewall_driver_class(name)
    if kind is firewall.NoopFirewallDriver:
        return NoFirewall(f"firewall_driver = {name}")
    # Not what is derived from them: that may leave something else.
    if kind is OVSFirewallDriver:
        ofctl = Ofctl(
            ours.ovs_run_dir,
            bridge.br_name,
            ours.openflow_timeout,
            privileged.execute,
            watch=watch,
        )
        return OpenvswitchFirewall(bridge, ofctl, SecurityGroupInfo(cache))
    if kind is OVSHybridIptablesFirewallDriver:
        return HybridFirewall(SecurityGroupInfo(cache), ours.openflow_timeout)
    return UnknownFirewall(name)
