"""Neutron's ports and rules become our specs, or are refused by name."""

import ipaddress
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_flows.neutron import parsing
from agent_flows.neutron.parsing import NO_MEMBERS
from agent_flows.spec import Direction, Ethertype, Member, SecurityGroupRule
from agent_flows.validation import Invalid

GROUP, OTHER, PORT = (str(uuid.UUID(int=number)) for number in (1, 2, 3))


def rule(**fields: Any) -> dict[str, Any]:
    return {"direction": "ingress", "ethertype": "IPv4", **fields}


def port(**fields: Any) -> dict[str, Any]:
    return {
        "device": PORT,
        "mac_address": "fa:16:3e:00:00:01",
        "fixed_ips": ["10.0.0.1"],
        "security_groups": [GROUP],
        **fields,
    }


def _pair(address: str, mac: str) -> dict[str, str]:
    return {"ip_address": address, "mac_address": mac}


class TestRules:
    @pytest.mark.parametrize(
        ("raw", "made"),
        [
            (rule(), {}),
            (rule(protocol="tcp", port_range_min=1, port_range_max=9, stateful=True),
             {"protocol": 6, "port_range_min": 1, "port_range_max": 9}),
            (rule(protocol="6"), {"protocol": 6}),
            (rule(protocol=17), {"protocol": 17}),
            (rule(protocol="icmp", port_range_min=0), {"protocol": 1, "port_range_min": 0}),
            (rule(protocol="tcp", source_port_range_min=5, source_port_range_max=6),
             {"protocol": 6, "source_port_range_min": 5, "source_port_range_max": 6}),
            (rule(source_ip_prefix="10.0.0.0/8"),
             {"remote_ip_prefix": ipaddress.ip_network("10.0.0.0/8")}),
            (rule(direction="egress", dest_ip_prefix="10.0.0.9"),
             {"direction": Direction.EGRESS,
              "remote_ip_prefix": ipaddress.ip_network("10.0.0.9/32")}),
            (rule(source_ip_prefix="10.1.2.3/8"),
             {"remote_ip_prefix": ipaddress.ip_network("10.0.0.0/8")}),
            (rule(remote_group_id=OTHER, security_group_id=GROUP), {"remote_group_id": OTHER}),
            (rule(remote_address_group_id=OTHER), {"remote_address_group_id": OTHER}),
            (rule(protocol=None, port_range_min=None, remote_group_id=None), {}),
        ],
    )  # fmt: skip
    def test_become_rules_of_our_model(self, raw: dict[str, Any], made: dict[str, Any]) -> None:
        assert parsing.rule(raw) == SecurityGroupRule(**{"direction": Direction.INGRESS, **made})

    @pytest.mark.parametrize(
        ("raw", "field"),
        [
            (rule(direction="sideways"), "direction"),
            (rule(ethertype="IPv5"), "ethertype"),
            (rule(protocol="carrier-pigeon"), "protocol"),
            (rule(protocol="tcp", port_range_min=80), "port_range_max"),
            (rule(protocol="tcp", port_range_min=90, port_range_max=80), "port_range_max"),
            (rule(source_ip_prefix="everywhere"), "source_ip_prefix"),
            (rule(source_ip_prefix="2001:db8::/32"), "remote_ip_prefix"),
            (rule(dest_ip_prefix="10.0.0.0/8"), "dest_ip_prefix"),
            (rule(remote_group_id="x" * 37), "security_group_id"),
            (rule(remote_group_id=GROUP, source_ip_prefix="10.0.0.0/8"), "remote_group_id"),
            (rule(only_on_sundays=True), "only_on_sundays"),
            ("let them in", ""),
        ],
    )
    def test_that_are_invalid_are_refused_with_the_field(self, raw: object, field: str) -> None:
        with pytest.raises(Invalid) as refused:
            parsing.rule(raw)
        assert refused.value.field == field

    def test_of_a_group_count_once_in_any_order(self) -> None:
        one, other = rule(protocol="tcp"), rule(protocol="udp")
        assert parsing.group(GROUP, [one, other, dict(one)]) == parsing.group(GROUP, [other, one])

    def test_decide_whether_their_group_is_stateless(self) -> None:
        assert parsing.group(GROUP, [rule()]).stateful
        assert not parsing.group(GROUP, [rule(stateful=False)]).stateful

    @pytest.mark.parametrize(
        ("bad", "words"),
        [
            (rule(protocol="carrier-pigeon"), "protocol=carrier-pigeon"),
            (rule(destination_ip_prefix="10.0.0.0/8"), "destination_ip_prefix"),
            (rule(protocol="dccp", port_range_min=5, port_range_max=6), "tcp, udp and sctp"),
            (rule(protocol="udplite", source_port_range_min=5, source_port_range_max=6), "udplite"),
            (rule(source_ip_prefix="2001:db8::/32"), "must be an IPv4 prefix"),
            ("let them in", "let them in"),
        ],
    )
    def test_that_are_unusable_are_left_out_by_name_and_the_others_kept(
        self, bad: object, words: str
    ) -> None:
        good = [rule(protocol="tcp", stateful=False), rule(protocol="udp", stateful=False)]
        if isinstance(bad, dict):
            bad = {**bad, "stateful": False}
        made = parsing.group(GROUP, [good[0], bad, good[1]])
        assert made.refused is None
        assert not made.stateful
        assert made.rules == parsing.group(GROUP, good).rules
        [line] = made.left_out
        assert words in line
        assert GROUP in line

    def test_of_dccp_or_udplite_without_ports_count(self) -> None:
        made = parsing.group(GROUP, [rule(protocol="dccp"), rule(protocol="136")])
        assert ({rule.protocol for rule in made.rules}, made.left_out) == ({33, 136}, ())

    @pytest.mark.parametrize(
        ("raw", "words"),
        [
            ([rule(stateful=True), rule(stateful=False)], "stateful"),
            ([rule(stateful=[])], "stateful"),
            (None, "list"),
            ("rules", "list"),
        ],
    )
    def test_that_make_their_group_ambiguous_refuse_the_group(
        self, raw: object, words: str
    ) -> None:
        refused = parsing.group(GROUP, raw).refused
        assert refused is not None
        assert words in refused.message
        assert GROUP in refused.message

    @given(st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*rule(), "protocol", "x", "stateful"]), inner),
        max_leaves=12,
    ))  # fmt: skip
    def test_of_any_type_never_raise(self, raw: object) -> None:
        parsing.group(GROUP, raw)
        parsing.members(GROUP, raw)


class TestMembers:
    def test_are_pairs_of_address_and_mac_by_family(self) -> None:
        members = parsing.members(GROUP, {
            "IPv4": [("10.0.0.2", "fa:16:3e:00:00:02"), ["10.0.1.0/24", "fa:16:3e:00:00:02"]],
            "IPv6": {("2001:db8::/64", None)},
        })  # fmt: skip
        assert {str(member.address) for member in members.all} == {
            "10.0.0.2/32",
            "10.0.1.0/24",
            "2001:db8::/64",
        }

    def test_of_a_family_not_looked_up_are_kept(self) -> None:
        before = parsing.members(GROUP, {"IPv6": [("2001:db8::1", None)]})
        after = parsing.members(GROUP, {"IPv4": [("10.0.0.1", None)]}, before)
        assert after.by_family[Ethertype.IPV6] == before.by_family[Ethertype.IPV6]
        emptied = parsing.members(GROUP, {"IPv6": []}, after)
        assert [str(member.address) for member in emptied.all] == ["10.0.0.1/32"]

    def test_are_all_removed_by_an_empty_value(self) -> None:
        before = parsing.members(GROUP, {"IPv4": [("10.0.0.1", None)]})
        assert parsing.members(GROUP, {}, before) == NO_MEMBERS

    def test_may_have_the_string_none_as_mac(self) -> None:
        members = parsing.members(GROUP, {"IPv4": [("10.0.0.1", "None")]})
        assert members.all == (Member(ipaddress.ip_network("10.0.0.1")),)

    @pytest.mark.parametrize(
        "bad",
        [
            "10.0.0.1",
            ("10.0.0.1",),
            ("2001:db8::1", None),
            ("here", None),
            ("10.0.0.1", "there"),
            ("10.0.0.1", "03:bf:c0:00:02:64"),
        ],
    )
    def test_that_are_unusable_are_left_out_by_name_and_the_others_kept(self, bad: object) -> None:
        made = parsing.members(GROUP, {"IPv4": [("10.0.0.7", None), bad]})
        assert [str(member.address) for member in made.all] == ["10.0.0.7/32"]
        [line] = made.left_out
        assert GROUP in line
        assert repr(bad) in line

    @pytest.mark.parametrize("bad", [{"IPX": []}, {"IPv4": None}, {"IPv4": "10.0.0.1"}])
    def test_of_an_unknown_family_are_left_out_and_the_other_family_kept(
        self, bad: dict[str, object]
    ) -> None:
        before = parsing.members(GROUP, {"IPv4": [("10.0.0.1", None)]})
        made = parsing.members(GROUP, {**bad, "IPv6": [("2001:db8::1", None)]}, before)
        assert made.by_family[Ethertype.IPV6] == (Member(ipaddress.ip_network("2001:db8::1")),)
        assert (made.by_family[Ethertype.IPV4] == ()) == ("IPv4" in bad)
        [line] = made.left_out
        assert GROUP in line

    def test_not_grouped_by_family_are_left_out(self) -> None:
        made = parsing.members(GROUP, ["10.0.0.1"])
        assert made.all == ()
        assert GROUP in made.left_out[0]


class TestPorts:
    def test_are_read_from_the_agents_dict(self) -> None:
        made = parsing.port(
            port(
                allowed_address_pairs=[
                    {"mac_address": "FA:16:3E:00:00:02", "ip_address": "10.0.1.7/24"}
                ],
                device_owner="compute:nova",
                status="DOWN",
                revision_number=7,
            ),
            "here",
        ).spec
        assert made.mac_address == "fa:16:3e:00:00:01"
        assert [str(address) for address in made.fixed_ips] == ["10.0.0.1"]
        assert str(made.allowed_address_pairs[0].ip_address) == "10.0.1.0/24"
        assert made.allowed_address_pairs[0].mac_address == "fa:16:3e:00:00:02"
        assert made.port_security_enabled

    def test_are_equal_in_any_order_of_their_parts(self) -> None:
        some = port(fixed_ips=["10.0.0.1", "10.0.0.2"], security_groups=[GROUP, OTHER])
        same = port(fixed_ips=["10.0.0.2", "10.0.0.1"], security_groups=[OTHER, GROUP, GROUP])
        assert parsing.port(some, "here") == parsing.port(same, "here")

    def test_map_each_group_id_to_one_uuid(self) -> None:
        (group,) = parsing.port(port(security_groups=["default"]), "here").spec.security_groups
        assert group == parsing.rule(rule(remote_group_id="default")).remote_group_id
        assert uuid.UUID(group)
        assert group != parsing.group_id("defaulT")

    @pytest.mark.parametrize(
        ("raw", "field"),
        [
            (port(mac_address=None), "mac_address"),
            (port(mac_address="01:00:5e:00:00:01"), "mac_address"),
            (port(fixed_ips="10.0.0.1"), "fixed_ips"),
            (port(allowed_address_pairs="10.0.0.1"), "allowed_address_pairs"),
            (port(port_security_enabled="no"), "port_security_enabled"),
            (port(device="tap0"), "id"),
        ],
    )  # fmt: skip
    def test_that_are_invalid_themselves_are_refused_with_the_field(
        self, raw: dict[str, Any], field: str
    ) -> None:
        with pytest.raises(Invalid) as refused:
            parsing.port(raw, "here")
        assert refused.value.field == field

    @pytest.mark.parametrize(
        ("field", "bad"),
        [
            ("allowed_address_pairs", _pair("10.0.0.9", "03:bf:c0:00:02:64")),
            ("allowed_address_pairs", _pair("10.0.0.9", "there")),
            ("allowed_address_pairs", _pair("fe80::1%eth0", "fa:16:3e:00:00:09")),
            ("allowed_address_pairs", _pair("", "fa:16:3e:00:00:09")),
            ("allowed_address_pairs", {"mac_address": "fa:16:3e:00:00:09"}),
            ("allowed_address_pairs", "10.0.0.9"),
            ("fixed_ips", "here"),
            ("fixed_ips", None),
            ("fixed_ips", "fe80::1%eth0"),
            ("security_groups", ""),
            ("security_groups", "x" * 37),
        ],
    )
    def test_leave_out_an_unusable_item_and_name_it(self, field: str, bad: object) -> None:
        good = port(allowed_address_pairs=[_pair("10.0.1.0/24", "fa:16:3e:00:00:02")])
        made = parsing.port({**good, field: [bad, *good[field]]}, "here")
        assert made.spec == parsing.port(good, "here").spec
        [line] = made.left_out
        assert PORT in line
        assert "allows nothing" in line

    def test_have_the_same_wiring_despite_items_left_out(self) -> None:
        bad = _pair("10.0.0.9", "03:bf:c0:00:02:64")
        assert parsing.same_wiring(port(), port(allowed_address_pairs=[bad]))
