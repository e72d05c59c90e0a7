"""Ports and groups in the agent's resource cache, and ports that cannot be read."""

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
