"""agent-flows-leave-host: takes what is ours off a compute host's bridge, for good."""

import sys
from collections.abc import Sequence

from oslo_config import cfg

from agent_flows import conf as options
from agent_flows import process
from agent_flows.neutron import quarantine
from agent_flows.secgroups import cookie
from agent_flows.secgroups.ofctl import Ofctl, SwitchError, Timeout

PROG = "agent-flows-leave-host"

_EVERY_FLOW = tuple(
    f"delete {cookie.selector(owner << 48, 0xFFFF << 48)}"
    for owner in (cookie.OWNER, quarantine.OWNER)
)


def leave(ofctl: Ofctl) -> tuple[int, int]:
    """Delete every flow of ours and let go the ports that are sealed; how many of each.

    A port of a host whose agent goes on without us is filtered by that agent's
    own firewall driver, or by nobody. Raises :class:`SwitchError` or
    :class:`Timeout`.
    """
    flows = sum(
        ofctl.count(owner << 48, 0xFFFF << 48) for owner in (cookie.OWNER, quarantine.OWNER)
    )
    sealed = ofctl.sealed()
    ofctl.bundle(_EVERY_FLOW)
    for ofport in sorted(sealed):
        ofctl.unseal(ofport)
    return flows, len(sealed)


def main(argv: Sequence[str] | None = None) -> int:
    """Once the agent runs without agent_flows. 1 with one line on standard error if the switch
    does not do it."""
    conf = process.prepare(sys.argv[1:] if argv is None else argv, PROG, cfg.CONF)
    ours = conf[options.AGENT]
    ofctl = Ofctl(ours.ovs_run_dir, ours.integration_bridge, ours.openflow_timeout)
    try:
        flows, ports = leave(ofctl)
    except (SwitchError, Timeout) as exc:
        print(f"{PROG}: {ours.integration_bridge}: {exc}", file=sys.stderr)
        return 1
    print(f"{flows} flows deleted, {ports} ports unsealed")
    return 0
