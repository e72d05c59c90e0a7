"""What a change of a port in Neutron does: takes or drops a row, adds or lifts a block."""

import dataclasses
from typing import Any

import pytest

from agent_flows.neutron.server import block_policy
from agent_flows.neutron.server.block_policy import Change, PortFacts, decide

PORT: dict[str, Any] = {
    "mac_address": "fa:16:3e:00:00:01",
    "fixed_ips": [{"subnet_id": "s", "ip_address": "10.0.0.7"}],
    "allowed_address_pairs": [],
    "security_groups": ["g"],
    "port_security_enabled": True,
    "admin_state_up": True,
    "device_owner": "compute:nova",
    "status": "DOWN",
    "revision_number": 7,
    "binding:host_id": "host-a",
    "binding:vif_type": "ovs",
    "binding:profile": {},
}


def facts(**fields: Any) -> PortFacts:
    names = {"host": "binding:host_id", "vif": "binding:vif_type", "profile": "binding:profile"}
    return PortFacts.of({**PORT, **{names.get(k, k): v for k, v in fields.items()}})


UNBOUND = facts(host="", vif="unbound")
IN_TRANSIT = facts(vif="unbound")
BOUND = facts()
ACTIVE = facts(status="ACTIVE")


def change(
    before: PortFacts,
    after: PortFacts,
    row: str | None,
    extension: bool = True,
    gating_off: bool = False,
) -> Change | None:
    """None if the mechanism driver ignores the change."""
    if not block_policy.matters(before, after):
        return None
    return decide(before, after, row, lambda: extension, lambda: gating_off)


def test_bound_port_is_taken_and_blocked() -> None:
    assert change(IN_TRANSIT, BOUND, None) == Change(take=True, block=True)


def test_port_on_a_host_without_the_extension_is_ignored() -> None:
    assert change(IN_TRANSIT, BOUND, None, extension=False) == Change()
    assert change(ACTIVE, BOUND, None, extension=False) == Change()


@pytest.mark.parametrize("vif", ["hw_veb", "binding_failed", "distributed", "bridge"])
def test_port_bound_by_another_driver_is_ignored(vif: str) -> None:
    assert change(IN_TRANSIT, facts(vif=vif), None) == Change()


def test_unbound_port_is_not_blocked() -> None:
    assert change(UNBOUND, IN_TRANSIT, None) == Change()


def test_port_that_is_no_longer_active_is_blocked() -> None:
    assert change(ACTIVE, BOUND, "host-a") == Change(fall=True, block=True)
    assert change(ACTIVE, facts(status="BUILD"), "host-a") == Change(fall=True, block=True)


def test_port_that_falls_on_a_host_that_got_the_extension_is_taken() -> None:
    assert change(ACTIVE, BOUND, None) == Change(take=True, block=True)


def test_port_that_falls_on_a_host_that_lost_the_extension_is_dropped() -> None:
    assert change(ACTIVE, BOUND, "host-a", extension=False) == Change(drop=True, block=False)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (ACTIVE, dataclasses.replace(ACTIVE, revision=9)),
        (BOUND, facts(status="BUILD")),
        (ACTIVE, facts(status="ACTIVE", name="new", description="new")),
    ],
    ids=["revision", "build", "name"],
)
def test_irrelevant_change_reads_nothing_from_the_database(
    before: PortFacts, after: PortFacts
) -> None:
    assert change(before, after, "host-a") is None


@pytest.mark.parametrize(
    "fields",
    [
        {"mac_address": "fa:16:3e:00:00:02"},
        {"fixed_ips": []},
        {"allowed_address_pairs": [{"ip_address": "10.1.0.0/24"}]},
        {"security_groups": []},
        {"port_security_enabled": False},
        {"admin_state_up": False},
        {"device_owner": "compute:other"},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_change_of_the_wiring_is_newer_than_any_report(fields: dict[str, Any]) -> None:
    after = facts(status="ACTIVE", **fields)
    assert change(ACTIVE, after, "host-a") == Change(revise=True)
    assert change(ACTIVE, after, None) == Change()


def test_order_and_default_macs_are_no_change() -> None:
    pairs = [
        {"ip_address": "10.1.0.1"},
        {"ip_address": "10.1.0.2", "mac_address": "aa:bb:cc:0:0:1"},
    ]
    explicit = [pairs[1], {"ip_address": "10.1.0.1", "mac_address": PORT["mac_address"]}]
    before = facts(security_groups=["a", "b"], allowed_address_pairs=pairs)
    after = facts(security_groups=["b", "a"], allowed_address_pairs=explicit)
    assert change(before, after, "host-a") is None


def test_port_that_leaves_the_host_is_dropped() -> None:
    dropped = Change(drop=True, block=False)
    assert change(ACTIVE, UNBOUND, "host-a") == dropped
    assert change(ACTIVE, facts(vif="binding_failed"), "host-a") == dropped
    assert change(ACTIVE, facts(host="host-b", vif="unbound"), "host-a") == dropped


def test_port_bound_to_another_host_at_once_is_dropped_and_taken() -> None:
    after = facts(host="host-b")
    assert change(BOUND, after, "host-a") == Change(drop=True, take=True, block=True)
    assert change(BOUND, after, "host-a", extension=False) == Change(drop=True, block=False)


def test_port_bound_again_on_the_same_host_must_be_proven_again() -> None:
    other = facts(vif="unbound", profile={"tier": "gold"})
    assert change(ACTIVE, other, "host-a") == Change(revise=True, fall=True)
    bound = facts(profile={"tier": "gold"})
    assert change(other, bound, "host-a") == Change(revise=True, fall=True, block=True)


@pytest.mark.parametrize(
    "owner", ["network:dhcp", "network:router_interface", "network:ha_router_replicated_interface"]
)
def test_ports_of_neutrons_services_are_taken_and_never_blocked(owner: str) -> None:
    before, after = facts(vif="unbound", device_owner=owner), facts(device_owner=owner)
    assert change(before, after, None) == Change(take=True)
    active = facts(status="ACTIVE", device_owner=owner)
    assert change(active, after, "host-a") == Change(fall=True)


def test_change_between_service_and_vm_lifts_or_adds_the_block() -> None:
    service = facts(device_owner="network:dhcp")
    assert change(BOUND, service, "host-a") == Change(revise=True, block=False)
    assert change(service, BOUND, "host-a") == Change(revise=True, block=True)


def test_port_without_an_owner_is_gated_like_a_vm() -> None:
    assert block_policy.is_gated("")


def test_desired_revision_is_higher_than_the_known_one() -> None:
    assert block_policy.desired_revision(BOUND) == 8


@pytest.mark.parametrize(
    ("configurations", "ours"),
    [
        ({"extensions": ["qos", "agent_flows"]}, True),
        ({"extensions": ["qos"]}, False),
        ({"extensions": None}, False),
        ({}, False),
        (None, False),
    ],
)
def test_extension_is_read_from_the_agents_configurations(
    configurations: dict[str, Any] | None, ours: bool
) -> None:
    assert block_policy.has_extension(configurations) is ours


def test_while_gating_is_off_no_port_is_blocked() -> None:
    taken = Change(take=True, block=False, ungated=True)
    assert change(IN_TRANSIT, BOUND, None, gating_off=True) == taken
    fell = Change(fall=True, block=False, ungated=True)
    assert change(ACTIVE, BOUND, "host-a", gating_off=True) == fell


def test_a_port_with_a_row_that_becomes_active_is_noticed() -> None:
    assert change(BOUND, ACTIVE, "host-a") == Change(rise=True)
    assert change(BOUND, ACTIVE, None) == Change()
