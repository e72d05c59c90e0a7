"""agent-flows-leave-host: removes our flows from a compute host's bridge for good."""

import sys
from collections.abc import Sequence

from oslo_config import cfg

from agent_flows import conf as options
from agent_flows import process
from agent_flows.neutron.agent import quarantine
from agent_flows.openflow import cookie
from agent_flows.openflow.ofctl import Ofctl, SwitchError, SwitchUnreachable, Timeout

PROG = "agent-flows-leave-host"

_EVERY_FLOW = tuple(
    f"delete {cookie.selector(owner << 48, 0xFFFF << 48)}"
    for owner in (cookie.OWNER, quarantine.OWNER)
)


def leave(ofctl: Ofctl) -> tuple[int, int]:
    """Delete every flow of ours and unseal the sealed ports; returns how many of each.

    From then on only the agent's own firewall driver filters the host's ports.
    Raises :class:`SwitchError` or :class:`Timeout`.
    """
    flows = sum(
        ofctl.count(owner << 48, 0xFFFF << 48) for owner in (cookie.OWNER, quarantine.OWNER)
    )
    sealed = ofctl.sealed()
    ofctl.bundle(_EVERY_FLOW)
    for ofport in sorted(sealed):
        ofctl.unseal(ofport)
    return flows, len(sealed)


def bridge_of(conf: cfg.ConfigOpts) -> str:
    """The integration bridge of Neutron's agent.

    Raises ValueError, with one line, if agent_flows' own option names another bridge.
    """
    bridge = str(conf.OVS.integration_bridge)
    own = conf[options.AGENT].integration_bridge
    place = conf.get_location("integration_bridge", options.AGENT)
    if place is not None and place.location.is_user_controlled and own != bridge:
        raise ValueError(
            f"[{options.AGENT}] integration_bridge is {own} and [ovs] integration_bridge is "
            f"{bridge}; Neutron's agent reads the second only: name the bridge there, and give "
            "the file of Neutron's agent with --config-file"
        )
    return bridge


def main(argv: Sequence[str] | None = None) -> int:
    """To be run once the agent runs without agent_flows. Returns 1 and prints one line on standard
    error if the switch refuses or does not answer, or if Neutron is not installed."""
    try:
        # The program is installed with every host's, also where there is no Neutron.
        from neutron.conf.plugins.ml2.drivers import ovs_conf
    except ModuleNotFoundError as exc:
        print(
            f"{PROG}: {exc}; install it in the Python environment of Neutron's agent",
            file=sys.stderr,
        )
        return 1
    ovs_conf.register_ovs_opts(cfg.CONF)
    conf = process.prepare(sys.argv[1:] if argv is None else argv, PROG, cfg.CONF)
    ours = conf[options.AGENT]
    try:
        bridge = bridge_of(conf)
        flows, ports = leave(Ofctl(ours.ovs_run_dir, bridge, ours.openflow_timeout))
    except SwitchUnreachable:
        reason = (
            f"bridge {bridge} ([ovs] integration_bridge) does not answer in {ours.ovs_run_dir}: "
            "does it exist, does ovs-vswitchd run, is [agent_flows] ovs_run_dir right?"
        )
    except (SwitchError, Timeout) as exc:
        reason = f"bridge {bridge}: {exc}"
    except ValueError as exc:
        reason = str(exc)
    else:
        print(f"bridge {bridge}: {flows} flows deleted, {ports} ports unsealed")
        return 0
    print(f"{PROG}: {reason}", file=sys.stderr)
    return 1
