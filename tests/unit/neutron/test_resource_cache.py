"""Ports and groups in the agent's resource cache, and ports that cannot be read."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import oslo_messaging
import pytest
from neutron_lib import context

from agent_flows.engine.task import TaskFailed
from agent_flows.neutron.resource_cache import SecurityGroupInfo


@pytest.fixture(autouse=True)
def admin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neutron creates its context from a parsed configuration."""
    monkeypatch.setattr(context, "get_admin_context", lambda: None)


ROOT = Path(__file__).parents[3]
# Three ports of a group whose rules refer to itself and to an address group. Another green thread
# counts how often it runs, which it may between any two things that are read.
GREEN = """
import eventlet
eventlet.monkey_patch()
import time
import netaddr
from neutron.agent.resource_cache import RemoteResourceCache
from neutron.api.rpc.handlers import resources_rpc
from neutron.api.rpc.handlers.securitygroups_rpc import SecurityGroupServerAPIShim
from neutron.objects import address_group, ports, securitygroup
from neutron_lib import context
from neutron_lib.utils.net import AuthenticEUI
from agent_flows import fairness
from agent_flows.neutron import rules_digest
from agent_flows.neutron.resource_cache import SecurityGroupInfo

GROUP, ADDRESSES, *RULES = (f"00000000-0000-4000-8000-{number:012}" for number in range(6))
PORTS = [f"0000000{number}-0000-4000-8000-000000000000" for number in range(1, 4)]
context.get_admin_context = lambda: None
# There is no server.
resources_rpc.ResourcesPullRpcApi = lambda: None
cache = RemoteResourceCache(["Port", "SecurityGroup", "SecurityGroupRule", "AddressGroup"])
cache._flood_cache_for_query = lambda *_, **__: None

def add(kind, made):
    cache._type_cache(kind)[made.id] = made

add("SecurityGroup", securitygroup.SecurityGroup(None, id=GROUP, stateful=True))
for rule_id, remote in zip(RULES, [
    {"remote_group_id": GROUP},
    {"remote_group_id": GROUP, "ethertype": "IPv6"},
    {"remote_address_group_id": ADDRESSES},
    {"remote_ip_prefix": netaddr.IPNetwork("192.0.2.0/24")},
]):
    fields = dict.fromkeys(rules_digest.NAMES) | {"ethertype": "IPv4", "direction": "ingress"}
    add("SecurityGroupRule", securitygroup.SecurityGroupRule(
        None, **fields | {"id": rule_id, "security_group_id": GROUP} | remote))
addresses = address_group.AddressGroup(None, id=ADDRESSES)
addresses.addresses = [
    address_group.AddressAssociation(None, address=netaddr.IPNetwork(f"198.51.100.{number}"))
    for number in range(4)
]
add("AddressGroup", addresses)
for number, port_id in enumerate(PORTS):
    port = ports.Port(None, id=port_id, mac_address=AuthenticEUI(f"fa:16:3e:00:00:0{number}"),
                      device_owner="compute:nova", device_id="vm", network_id=GROUP)
    port.fixed_ips = [
        ports.IPAllocation(None, ip_address=netaddr.IPAddress(each))
        for each in (f"10.0.0.{number}", f"2001:db8::{number}")
    ]
    port.allowed_address_pairs = []
    port.security = None
    port.security_group_ids = {GROUP}
    add("Port", port)

runs = 0

def other():
    global runs
    while True:
        runs += 1
        time.sleep(0)

eventlet.spawn(other)
time.sleep(0)
neutrons = SecurityGroupServerAPIShim.__new__(SecurityGroupServerAPIShim)
neutrons.rcache = cache
runs = 0
expected = neutrons.security_group_info_for_devices(None, PORTS)
assert runs == 0, runs
fairness._SLICE_SECONDS = 0
known = SecurityGroupInfo(cache).of(PORTS)
# Each port; each rule, and each port with it; each port as a member, and its two addresses; the
# four addresses.
assert runs >= 3 + 4 + 3 * 4 + 3 + 3 * 2 + 4, runs
assert (known.devices, known.security_groups, known.members) == (
    expected["devices"], expected["security_groups"], expected["sg_member_ips"]
)
assert len(known.security_groups[GROUP]) == 4 and len(known.members[GROUP]["IPv6"]) == 3
"""
GONE = AttributeError("'NoneType' object has no attribute 'stateful'")


class Info(SecurityGroupInfo):
    """Neutron's code raises ``raises`` for these ports, and for every request that contains one."""

    def __init__(self, raises: dict[str, Exception]) -> None:
        super().__init__(cache=None)
        self.raises = raises
        self.asked: list[list[str]] = []

    def security_group_info_for_devices(
        self, context: object, devices: list[str]
    ) -> dict[str, Any]:
        self.asked.append(devices)
        for port_id in devices:
            if port_id in self.raises:
                raise self.raises[port_id]
        return {
            "devices": {port_id: {"device": port_id} for port_id in devices},
            "security_groups": {f"group of {port_id}": [] for port_id in devices},
            "sg_member_ips": {"friends": {"IPv6" if port_id == "c" else "IPv4": set()
                                          for port_id in devices}},
        }  # fmt: skip


def test_unreadable_port_is_named_and_the_others_are_read() -> None:
    info = Info({"b": GONE})
    known = info.of(["a", "b", "c"])
    assert known.devices.keys() == {"a", "c"}
    assert known.security_groups.keys() == {"group of a", "group of c"}
    assert known.members == {"friends": {"IPv4": set(), "IPv6": set()}}
    [(port_id, error)] = known.unreadable.items()
    assert (port_id, error.type) == ("b", "GroupsUnreadable")
    assert "stateful" in error.message


def test_readable_ports_take_one_request() -> None:
    info = Info({})
    assert not info.of(["a", "b", "c"]).unreadable
    assert info.asked == [["a", "b", "c"]]


def test_unreadable_port_is_logged_once_for_each_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    info = Info({"b": GONE})
    for _ in range(3):
        info.of(["a", "b"])
    assert len(caplog.records) == 1
    info.raises["b"] = KeyError("addresses")
    info.of(["b"])
    assert len(caplog.records) == 2
    del info.raises["b"]
    assert not info.of(["b"]).unreadable
    info.raises["b"] = KeyError("addresses")
    info.of(["b"])
    assert len(caplog.records) == 3


def test_silent_server_fails_the_whole_batch_after_one_request() -> None:
    info = Info({"b": oslo_messaging.MessagingTimeout("no answer")})
    with pytest.raises(TaskFailed) as failed:
        info.of(["a", "b", "c"])
    assert failed.value.error.type == "NeutronUnreachable"
    assert failed.value.error.message == (
        "could not read the port's security groups from neutron-server"
    )
    assert len(info.asked) == 1


def test_everything_is_read_as_neutron_reads_it_and_other_green_threads_run_meanwhile() -> None:
    argv = [sys.executable, "-W", "ignore", "-c", GREEN]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
