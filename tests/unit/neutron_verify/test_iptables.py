"""iptables_hybrid: each rule that Neutron's driver makes is missed if it is not installed."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from neutron.agent.linux import ip_conntrack, ipset_manager, iptables_firewall, iptables_manager
from neutron.conf.agent import securitygroups_rpc
from oslo_config import cfg
from oslo_utils import netutils

from agent_flows.engine.task import TaskFailed
from agent_flows.neutron.interfaces import Interface
from agent_flows.neutron.resource_cache import Known
from agent_flows.neutron.verify.iptables import IptablesInspector
from agent_flows.spec import NetworkSpec, NetworkType

PORT = "11111111-2222-3333-4444-555555555555"
OTHER = "99999999-2222-3333-4444-555555555555"
GROUP, REMOTE = "sg-a", "sg-b"
NETWORK = NetworkSpec("22222222-2222-2222-2222-222222222222", NetworkType.LOCAL)
WHERE = Interface("qvo1", 1, 1, NETWORK, "fa:16:3e:00:00:01")


def device(port_id: str, *, port_security: bool = True) -> dict[str, Any]:
    return {
        "device": port_id,
        "mac_address": "fa:16:3e:00:00:01",
        "fixed_ips": ["10.0.0.1", "2001:db8::1"],
        "allowed_address_pairs": [],
        "security_groups": [GROUP],
        "security_group_rules": [],
        "port_security_enabled": port_security,
        "device_owner": "compute:nova",
        "network_id": NETWORK.id,
    }


def rule(**fields: Any) -> dict[str, Any]:
    return {"direction": "ingress", "ethertype": "IPv4", "stateful": True, **fields}


class Kernel:
    """The rules in iptables: those that Neutron's own driver gives it."""

    def __init__(self) -> None:
        self.rules: dict[str, list[str]] = {"iptables-save": [], "ip6tables-save": []}

    def take(self, driver: Any) -> None:
        families = driver.iptables.ipv4, driver.iptables.ipv6
        self.rules = {
            program: [str(rule) for rule in family["filter"].rules]
            for program, family in zip(self.rules, families, strict=True)
        }

    def save(self, program: str, seconds: int) -> str:
        return "\n".join(["*filter", ":INPUT ACCEPT [0:0]", *self.rules[program], "COMMIT"])

    def lose(self, pattern: str) -> None:
        """The first IPv4 rule like this."""
        rules = self.rules["iptables-save"]
        rules.remove(next(rule for rule in rules if re.search(pattern, rule)))


class Neutron:
    """What the agent's cache contains."""

    def __init__(self, *devices: dict[str, Any]) -> None:
        self.info: dict[str, Any] = {
            "devices": {device["device"]: device for device in devices},
            "security_groups": {
                GROUP: [
                    rule(protocol="tcp", port_range_min=80, port_range_max=80),
                    rule(protocol="udp", remote_group_id=REMOTE),
                    rule(direction="egress"),
                ]
            },
            "sg_member_ips": {REMOTE: {"IPv4": {("10.0.0.9", "fa:16:3e:00:00:09")}}},
        }

    def of(self, port_ids: list[str]) -> Known:
        info = self.info
        return Known(info["devices"], info["security_groups"], info["sg_member_ips"], {})


@pytest.fixture(autouse=True)
def options() -> Iterator[None]:
    securitygroups_rpc.register_securitygroups_opts()
    cfg.CONF.set_override("enable_ipset", True, "SECURITYGROUP")
    with mock.patch.object(netutils, "is_ipv6_enabled", return_value=True):
        yield
    cfg.CONF.clear_override("enable_ipset", "SECURITYGROUP")


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


def program(kernel: Kernel, neutron: Neutron, *trusted: str) -> None:
    """Neutron's driver makes the rules of all ports; they go to ``kernel``."""
    kind = iptables_firewall.OVSHybridIptablesFirewallDriver
    with (
        mock.patch.object(kind, "_check_netfilter_for_bridges"),
        mock.patch.object(ip_conntrack, "get_conntrack"),
        mock.patch.object(iptables_manager.IptablesManager, "_apply"),
        mock.patch.object(ipset_manager.IpsetManager, "set_members_mutate"),
        mock.patch.object(ipset_manager.IpsetManager, "destroy"),
        mock.patch.object(ipset_manager.IpsetManager, "set_name_exists", return_value=True),
    ):
        driver = kind()
        for group, rules in neutron.info["security_groups"].items():
            driver.update_security_group_rules(group, rules)
        for group, members in neutron.info["sg_member_ips"].items():
            driver.update_security_group_members(group, members)
        with driver.defer_apply():
            for port in neutron.info["devices"].values():
                driver.prepare_port_filter(port)
            driver.process_trusted_ports(list(trusted))
    kernel.take(driver)


def missing(kernel: Kernel, neutron: Neutron, port_id: str = PORT) -> str:
    """The finding about the port."""
    firewall = IptablesInspector(neutron, 10, kernel.save)  # type: ignore[arg-type]
    error = firewall.inspect({port_id: WHERE})[port_id].missing
    return error.detail if error is not None else ""


def test_port_with_all_rules_lacks_nothing(kernel: Kernel) -> None:
    neutron = Neutron(device(PORT), device(OTHER))
    program(kernel, neutron)
    assert missing(kernel, neutron) == ""


def test_port_unknown_to_the_driver_lacks_its_chains(kernel: Kernel) -> None:
    program(kernel, Neutron(device(OTHER)))
    lacks = missing(kernel, Neutron(device(PORT)))
    assert re.search(r"chain \S+-i11111111-2 of iptables has none of the \d rules", lacks)
    assert re.search(r"chain \S+-o11111111-2 of ip6tables has none of the \d+ rules", lacks)


@pytest.mark.parametrize(
    ("gone", "chain"),
    [
        (r"-i11111111-2 .*--dport 80", "-i11111111-2"),
        (r"-i11111111-2 .*--match-set", "-i11111111-2"),
        (r"-s11111111-2 .*10\.0\.0\.1", "-s11111111-2"),
        (r"-sg-chain .*physdev-out tap11111111-22 ", "-sg-chain"),
        (r"-FORWARD .*physdev-in tap11111111-22 ", "-FORWARD"),
    ],
)
def test_each_missing_rule_is_found(kernel: Kernel, gone: str, chain: str) -> None:
    neutron = Neutron(device(PORT), device(OTHER))
    program(kernel, neutron)
    kernel.lose(gone)
    assert re.search(rf"chain \S+{chain} of iptables has", missing(kernel, neutron))
    assert missing(kernel, neutron, OTHER) == ""


def test_remote_group_without_members_needs_no_rule(kernel: Kernel) -> None:
    neutron = Neutron(device(PORT))
    neutron.info["sg_member_ips"] = {REMOTE: {"IPv4": set()}}
    program(kernel, neutron)
    kernel.lose("--match-set")
    assert missing(kernel, neutron) == ""


def test_unfiltered_ports_need_their_accept_rules(
    kernel: Kernel,
) -> None:
    neutron = Neutron(device(PORT, port_security=False))
    program(kernel, neutron, OTHER)
    assert missing(kernel, neutron) == ""
    assert missing(kernel, neutron, OTHER) == ""
    kernel.rules["iptables-save"] = []
    assert "has none of the 2 rules" in missing(kernel, neutron)
    assert "has none of the 2 rules" in missing(kernel, neutron, OTHER)


def test_rules_of_a_port_that_is_gone_are_leftovers(kernel: Kernel) -> None:
    neutron = Neutron(device(PORT), device(OTHER))
    program(kernel, neutron)
    firewall = IptablesInspector(neutron, 10, kernel.save)  # type: ignore[arg-type]
    left = firewall.leftovers({PORT: 1})[PORT]
    assert left.type == "RulesSurplus"
    program(kernel, Neutron(device(OTHER)))
    assert firewall.leftovers({PORT: 1}) == {}


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo no such table >&2; exit 1", "no such table"),
        ("exit 3", "code 3"),
        ("sleep 600", "did not end within 1 s"),
    ],
)
def test_failing_iptables_save_is_every_ports_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    tool = tmp_path / "iptables-save"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    # Without Neutron's root helper, which is not installed here.
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    firewall = IptablesInspector(Neutron(), 1)  # type: ignore[arg-type]
    with pytest.raises(TaskFailed, match="IptablesError") as caught:
        firewall.inspect({PORT: WHERE})
    assert caught.value.whole_batch
    assert words in caught.value.error.detail
