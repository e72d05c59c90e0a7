"""Which driver the agent has, and what of a port's details its wiring depends on."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import netaddr
import pytest
from neutron.conf.agent import securitygroups_rpc
from oslo_config import cfg

from agent_flows import conf as options
from agent_flows.neutron.interfaces import Interface
from agent_flows.neutron.verify.driver import NoFirewall, OtherDriver, UnknownFirewall
from agent_flows.neutron.verify.factory import configured
from agent_flows.neutron.verify.iptables import HybridFirewall
from agent_flows.neutron.verify.openvswitch import OpenvswitchFirewall
from agent_flows.neutron.verify.plugged_port import Plugged, is_active
from agent_flows.spec import NetworkSpec, NetworkType

NETWORK = NetworkSpec("22222222-2222-2222-2222-222222222222", NetworkType.LOCAL)
WHERE = Interface("tap1", 1, 1, NETWORK, "fa:16:3e:00:00:01")


@pytest.fixture
def conf() -> Iterator[cfg.ConfigOpts]:
    securitygroups_rpc.register_securitygroups_opts()
    options.register(cfg.CONF)
    yield cfg.CONF
    cfg.CONF.clear_override("firewall_driver", "SECURITYGROUP")
    cfg.CONF.clear_override("enable_security_group", "SECURITYGROUP")


def chosen(conf: cfg.ConfigOpts, name: str | None) -> OtherDriver:
    conf.set_override("firewall_driver", name, "SECURITYGROUP")
    return configured(conf, SimpleNamespace(br_name="br-int"), None)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("openvswitch", OpenvswitchFirewall),
        ("neutron.agent.linux.openvswitch_firewall.OVSFirewallDriver", OpenvswitchFirewall),
        ("iptables_hybrid", HybridFirewall),
        ("noop", NoFirewall),
        (None, NoFirewall),
        ("iptables", UnknownFirewall),
    ],
)
def test_the_driver_is_the_one_the_agent_loads(
    conf: cfg.ConfigOpts, name: str | None, kind: type
) -> None:
    assert type(chosen(conf, name)) is kind


def test_without_security_groups_there_is_no_firewall_whatever_its_name(
    conf: cfg.ConfigOpts,
) -> None:
    conf.set_override("enable_security_group", False, "SECURITYGROUP")
    assert isinstance(chosen(conf, "openvswitch"), NoFirewall)


def test_a_driver_that_nobody_here_knows_proves_no_port() -> None:
    firewall = UnknownFirewall("somebodys")
    error = firewall.inspect({"a": WHERE})["a"].missing
    assert error is not None
    assert (error.type, "somebodys" in error.message) == ("UnknownFirewallDriver", True)
    assert firewall.left_over({"a": 1}) == {}


def test_where_nothing_is_to_filter_nothing_can_be_missing() -> None:
    firewall = NoFirewall("firewall_driver = noop")
    assert firewall.inspect({"a": WHERE})["a"].good
    assert firewall.left_over({"a": 1}) == {}


def details(**fields: Any) -> dict[str, Any]:
    vif = SimpleNamespace(port_name="tap1", ofport=1, vif_mac="fa:16:3e:00:00:01")
    return {
        "port_id": "a",
        "vif_port": vif,
        "admin_state_up": True,
        "mac_address": "fa:16:3e:00:00:01",
        "fixed_ips": [{"ip_address": "10.0.0.1"}, {"ip_address": "10.0.0.2"}],
        "allowed_address_pairs": [
            {"ip_address": netaddr.IPNetwork("10.0.0.9"), "mac_address": "fa:16:3e:00:00:09"}
        ],
        "security_groups": ["x", "y"],
        "port_security_enabled": True,
        "device_owner": "compute:nova",
        "network_id": "n",
        "status": "DOWN",
        **fields,
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "ACTIVE"},
        {"security_groups": ["y", "x"]},
        {"fixed_ips": [{"ip_address": "10.0.0.2"}, {"ip_address": "10.0.0.1"}]},
        {"local_vlan": 7},
        {"device_id": "other"},
    ],
)
def test_what_no_wiring_depends_on_makes_no_other_port(fields: dict[str, Any]) -> None:
    assert Plugged.of(details(**fields)) == Plugged.of(details())


@pytest.mark.parametrize(
    "fields",
    [
        {"admin_state_up": False},
        {"security_groups": ["x"]},
        {"fixed_ips": [{"ip_address": "10.0.0.1"}]},
        {"allowed_address_pairs": []},
        {"port_security_enabled": False},
        {"device_owner": "network:dhcp"},
        {"mac_address": "fa:16:3e:00:00:02"},
        {"network_id": "m"},
        {"vif_port": SimpleNamespace(port_name="tap1", ofport=2, vif_mac="fa:16:3e:00:00:01")},
    ],
)
def test_what_its_wiring_depends_on_makes_another_port(fields: dict[str, Any]) -> None:
    assert Plugged.of(details(**fields)) != Plugged.of(details())


def test_a_port_is_active_when_the_server_says_so() -> None:
    assert is_active(details(status="ACTIVE"))
    assert not is_active(details())
    assert not is_active({})
