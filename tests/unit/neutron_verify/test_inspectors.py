"""The inspector for each firewall driver, and what of a port's details its wiring depends on."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import netaddr
import pytest
from neutron.conf.agent import securitygroups_rpc
from oslo_config import cfg

from agent_flows import conf as options
from agent_flows.neutron.interfaces import Interface
from agent_flows.neutron.verify.factory import configured
from agent_flows.neutron.verify.inspector import Inspector, NoFirewall, UnknownFirewall
from agent_flows.neutron.verify.iptables import IptablesInspector
from agent_flows.neutron.verify.openvswitch import OpenvswitchInspector
from agent_flows.neutron.verify.plugged_port import PluggedPort, is_active
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


def chosen(conf: cfg.ConfigOpts, name: str | None) -> Inspector:
    conf.set_override("firewall_driver", name, "SECURITYGROUP")
    return configured(conf, SimpleNamespace(br_name="br-int"), None)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("openvswitch", OpenvswitchInspector),
        ("neutron.agent.linux.openvswitch_firewall.OVSFirewallDriver", OpenvswitchInspector),
        ("iptables_hybrid", IptablesInspector),
        ("noop", NoFirewall),
        (None, NoFirewall),
        ("iptables", UnknownFirewall),
    ],
)
def test_inspector_is_for_the_driver_the_agent_loads(
    conf: cfg.ConfigOpts, name: str | None, kind: type
) -> None:
    assert type(chosen(conf, name)) is kind


def test_disabled_security_groups_mean_no_firewall(
    conf: cfg.ConfigOpts,
) -> None:
    conf.set_override("enable_security_group", False, "SECURITYGROUP")
    assert isinstance(chosen(conf, "openvswitch"), NoFirewall)


def test_unknown_driver_proves_no_port() -> None:
    firewall = UnknownFirewall("somebodys")
    error = firewall.inspect({"a": WHERE})["a"].missing
    assert error is not None
    assert (error.type, "somebodys" in error.message) == ("UnknownFirewallDriver", True)
    assert firewall.leftovers({"a": 1}) == {}


def test_noop_driver_lacks_nothing() -> None:
    firewall = NoFirewall("firewall_driver = noop")
    assert firewall.inspect({"a": WHERE})["a"].good
    assert firewall.leftovers({"a": 1}) == {}


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
def test_port_is_the_same_if_its_wiring_does_not_change(fields: dict[str, Any]) -> None:
    assert PluggedPort.of(details(**fields)) == PluggedPort.of(details())


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
def test_port_is_another_if_its_wiring_changes(fields: dict[str, Any]) -> None:
    assert PluggedPort.of(details(**fields)) != PluggedPort.of(details())


def test_port_is_active_by_its_status() -> None:
    assert is_active(details(status="ACTIVE"))
    assert not is_active(details())
    assert not is_active({})
