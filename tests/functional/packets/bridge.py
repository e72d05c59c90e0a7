"""An integration bridge as it is before any port of ours: our own, or that of Neutron's agent."""

from collections.abc import Iterable

from agent_flows.openflow.ofctl import Ofctl
from agent_flows.openflow.pipeline import Home
from lab.switch import Switch
from tests.functional.secgroups.host import NEUTRONS_FLOWS


def prepare(
    switch: Switch, bridge: str, home: Home, ports: Iterable[str] = (), vlan: int = 1
) -> Ofctl:
    """``ports`` are of one network, whose local VLAN Neutron's agent sets as their tag."""
    ofctl = Ofctl(str(switch.run_dir), bridge, 30)
    if home is Home.NEUTRON:
        ofctl.bundle([f"add {line}" for line in NEUTRONS_FLOWS])
        for port in ports:
            switch.vsctl("set", "Port", port, f"tag={vlan}")
    return ofctl
