"""A host that goes on without us keeps nothing of ours."""

from agent_flows.neutron.leave import leave
from agent_flows.secgroups.ofctl import Ofctl
from tests.functional.neutron.cloud import Cloud
from tests.functional.secgroups.host import BRIDGE

OURS = "cookie=0xaf10000000000000/0xfffe000000000000"


def test_flows_and_seals_go_and_neutrons_flows_stay(cloud: Cloud) -> None:
    group = cloud.security_group()
    cloud.everything_out(group)
    vm = cloud.boot(1)
    cloud.neutron_port(vm, group)
    cloud.wire_ports(vm)
    ofctl = Ofctl(str(cloud.switch.run_dir), BRIDGE, 30)
    ofctl.seal(cloud.switch.ofport(vm.name))
    held = len(cloud.switch.flows(BRIDGE, OURS))
    others = len(cloud.switch.flows(BRIDGE)) - held
    cloud.stop_agent()
    assert leave(ofctl) == (held, 1)
    assert cloud.switch.flows(BRIDGE, OURS) == []
    assert ofctl.sealed() == frozenset()
    assert len(cloud.switch.flows(BRIDGE)) == others
