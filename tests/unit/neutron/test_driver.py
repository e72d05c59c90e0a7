"""The driver has the interface that Neutron's agent expects, and our flows survive its cleanup."""

import inspect

import pytest
from neutron.agent import firewall
from neutron.agent.linux.openvswitch_firewall.firewall import OVSFirewallDriver

from agent_flows.neutron.agent import quarantine
from agent_flows.neutron.agent.bridge import Reserved, ReservedCookies, watch
from agent_flows.neutron.agent.firewall_driver import AgentFlowsFirewallDriver
from agent_flows.openflow import cookie

INTERFACE = [
    name
    for name, _ in inspect.getmembers(firewall.FirewallDriver, inspect.isfunction)
    if not name.startswith("_") and name != "defer_apply"
]


def test_neutron_loads_it_by_its_name() -> None:
    assert firewall.load_firewall_driver_class("agent_flows") is AgentFlowsFirewallDriver


@pytest.mark.parametrize("name", INTERFACE)
def test_every_method_of_the_interface_takes_the_same_parameters(name: str) -> None:
    ours = getattr(AgentFlowsFirewallDriver, name)
    assert ours is not getattr(firewall.FirewallDriver, name)
    theirs = inspect.signature(getattr(firewall.FirewallDriver, name)).parameters
    assert len(inspect.signature(ours).parameters) == len(theirs)


def test_it_is_created_like_neutrons_own_driver() -> None:
    ours = inspect.signature(AgentFlowsFirewallDriver.__init__).parameters
    assert list(ours) == list(inspect.signature(OVSFirewallDriver.__init__).parameters)
    assert AgentFlowsFirewallDriver.provides_arp_spoofing_protection
    assert not getattr(AgentFlowsFirewallDriver, "OVS_HYBRID_PLUG_REQUIRED", False)


class Bridge:
    """With the agent's handling of cookies (br_cookie.py, ofswitch.py) and of start."""

    def __init__(self) -> None:
        self._reserved_cookies = {7}
        self.calls: list[str] = []

    @property
    def reserved_cookies(self) -> set[int]:
        return set(self._reserved_cookies)

    default_cookie = 7

    def setup_default_table(self, dhcp: bool = False) -> None:
        self.calls.append(f"opened, dhcp={dhcp}")

    def cleanup_flows(self) -> None:
        self.calls.append("cleaned up")


OURS = {cookie.port(5, 1), cookie.content(cookie.Kind.MEMBER, "x"), quarantine.cookie_of(5)}


def test_the_agent_keeps_our_flows_at_its_cleanup() -> None:
    bridge = Bridge()
    watch(bridge, lambda: None, lambda: None)
    assert {7, 8, *OURS} - bridge.reserved_cookies == {8}
    assert set(ReservedCookies()) == set(), "they are not counted up"


def test_ports_are_put_back_before_the_agent_opens_its_bridge() -> None:
    bridge = Bridge()
    watch(bridge, lambda: bridge.calls.append("by a driver that is gone"), lambda: None)
    watch(bridge, lambda: bridge.calls.append("put back"), lambda: None)
    bridge.setup_default_table(dhcp=True)
    assert bridge.calls == ["put back", "opened, dhcp=True"]


def test_cookies_of_an_earlier_agent_are_known_until_the_agent_has_cleaned_up() -> None:
    bridge = Bridge()
    reserved = Reserved(bridge)
    watch(bridge, lambda: None, reserved.cleaned_up)
    # Nothing of Neutron's has the cookie 0.
    reserved.found({0, 9})
    assert [reserved(value) for value in (0, 7, 8, 9, quarantine.cookie_of(5))] == [
        False, True, False, True, True,
    ]  # fmt: skip
    bridge.cleanup_flows()
    assert bridge.calls == ["cleaned up"]
    assert not reserved(9)


def test_a_bridge_without_these_methods_is_left_as_it_is() -> None:
    class Plain:
        br_name = "br-int"

    bridge = Plain()
    watch(bridge, lambda: None, lambda: None)
    assert type(bridge) is Plain
