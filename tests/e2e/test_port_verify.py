"""``port verify`` on a host whose agent has ended: nothing repairs what a test changes."""

import contextlib
import io
import json
import logging
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent_flows.cli import app
from lab.cloud import Cloud
from lab.model import egress_to_anywhere, everything, ingress, new_id, random_mac
from lab.product import PROGRAM, Site
from lab.switch import Switch
from lab.unprivileged import User
from lab.vm import Vm
from tests.e2e.conftest import HOST

SECONDS = 30


@dataclass(frozen=True)
class Stage:
    """Ports that were wired, and the command on their host."""

    site: Site
    vms: dict[str, Vm]

    @property
    def switch(self) -> Switch:
        return self.site.switch

    def run(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.switch.namespace.argv([str(PROGRAM), *self._words(name), *words]),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def _words(self, name: str) -> list[str]:
        return ["port", "verify", name, "--config-file", str(self.site.config_file)]

    def wrong(self, name: str) -> list[str]:
        """The lines of what is wrong; the exit code tells whether there are any.

        In this process, whose modules are loaded: that takes a second.
        """
        out, err = io.StringIO(), io.StringIO()
        root = logging.getLogger()
        handlers, level = list(root.handlers), root.level
        with (
            self.switch.namespace.entered(),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = app.main(self._words(name))
        root.handlers[:] = handlers
        root.setLevel(level)
        lines = out.getvalue().splitlines()
        wrong = [line for line in lines if line.startswith("wrong ")]
        assert code == (1 if wrong else 0), err.getvalue()
        assert all(line.startswith(("ok ", "wrong ")) for line in lines)
        return wrong

    def ofport(self, name: str) -> int:
        return self.switch.ofport(self.vms[name].tap)

    @contextlib.contextmanager
    def changed(self, *args: str, bridge: str = "br-int") -> Iterator[None]:
        """While the block lasts, what this command of ovs-ofctl did to the flows of a bridge."""
        before = "\n".join(self.switch.flows(bridge)) + "\n"
        management = self.switch.management(bridge)
        command, *rest = args
        self.switch.ofctl(command, management, *rest)
        try:
            yield
        finally:
            self.switch.ofctl("replace-flows", management, "/dev/stdin", stdin=before)


@pytest.fixture(scope="module")
def stage(site: Site) -> Iterator[Stage]:
    cloud = Cloud(site.api, HOST)
    network = cloud.network("vlan", physical_network="physnet1", segmentation_id=301)
    office = new_id()
    site.api.put("address-groups", office, {"name": "office", "addresses": ["198.51.100.0/24"]})
    web = cloud.group("web", [])
    http = ingress(protocol="tcp", port_range_min=80, port_range_max=443)
    rules = [
        http,
        ingress(remote_group_id=web),
        ingress(protocol="tcp", remote_address_group_id=office),
        ingress(ethertype="IPv6", protocol="icmp"),
        *egress_to_anywhere(),
    ]
    cloud.group("web", rules, web)
    db = cloud.group("db", [ingress(protocol="udp", remote_group_id=web), *egress_to_anywhere()])
    open_ = cloud.group("open", everything())
    stateless = new_id()
    body = {"name": "stateless", "stateful": False, "security_group_rules": [http]}
    site.api.put("security-groups", stateless, body)
    wanted: dict[str, tuple[list[str], dict[str, object]]] = {
        "web1": ([web], {}),
        "web2": ([web, db], {"allowed_address_pairs": [{"ip_address": "10.9.0.0/16"}]}),
        "open": ([open_], {}),
        "stateless": ([stateless], {}),
        "unfiltered": ([], {"port_security_enabled": False}),
        "down": ([web], {"admin_state_up": False}),
        "router": ([], {"device_owner": "network:router_interface"}),
        "local": ([db], {"network_id": cloud.network()}),
    }
    with contextlib.ExitStack() as made:
        vms = {}
        for number, (name, (groups, fields)) in enumerate(wanted.items(), 11):
            addresses = [f"10.3.0.{number}/24", f"2001:db8:3::{number}/64"]
            vm = made.enter_context(Vm(site.switch, name, random_mac(), addresses))
            vms[name] = vm
            cloud.port(vm, network, groups, name=name, **fields)
            vm.plug()
        for vm in vms.values():
            site.api.wait_port(vm.port_id, SECONDS, sync_state="IN_SYNC")
        site.agent.stop()
        try:
            yield Stage(site, vms)
        finally:
            site.start_agent()
            for vm in vms.values():
                vm.unplug()
                site.api.delete("ports", vm.port_id)


@pytest.mark.parametrize(
    "name", ["web1", "web2", "open", "stateless", "unfiltered", "down", "router", "local"]
)
def test_a_wired_port_is_right(stage: Stage, name: str) -> None:
    assert stage.wrong(name) == []


def test_every_kind_of_check_is_shown(stage: Stage) -> None:
    ran = stage.run("web1", "-f", "json")
    assert (ran.returncode, ran.stderr) == (0, "")
    checks = json.loads(ran.stdout)
    assert {each["check"] for each in checks} == {"interface", "wiring", "flows", "packet"}
    verdicts = [each["found"] for each in checks if each["check"] == "packet"]
    assert any("its own address: passes" in each for each in verdicts)
    assert any("not its address: dropped" in each for each in verdicts)
    assert any(each.startswith("in: tcp ") and each.endswith("passes") for each in verdicts)
    assert any("which no rule allows: dropped" in each for each in verdicts)


def test_a_flow_that_was_deleted_is_named(stage: Stage) -> None:
    ofport = stage.ofport("web1")
    with stage.changed("del-flows", f"table=84,reg5={ofport}"):
        wrong = stage.wrong("web1")
        assert "wrong flow missing: cookie=0x" in wrong[0]
        assert f"table=84,priority=100,reg5={ofport:#x} actions=output:{ofport}" in wrong[0]
        assert any("which a rule allows: dropped; right would be: passes" in e for e in wrong)
        assert stage.wrong("web2") == []


def test_a_flow_that_was_added_is_named(stage: Stage) -> None:
    ofport = stage.ofport("web1")
    with stage.changed("add-flow", f"table=82,priority=200,reg5={ofport},actions=resubmit(,83)"):
        wrong = stage.wrong("web1")
        assert wrong[0].startswith("wrong flow of another program: cookie=0x0,table=82")
        assert any("which no rule allows: passes; right would be: dropped" in e for e in wrong)
        assert stage.wrong("web2") == []


def test_a_flow_of_ours_that_nothing_desires_is_named(stage: Stage) -> None:
    ofport = stage.ofport("web1")
    own = 0xAF10 << 48 | 1 << 40 | ofport << 16 | 1
    flow = f"cookie={own:#x},table=71,priority=96,arp,reg5={ofport},actions=resubmit(,73)"
    with stage.changed("add-flow", flow):
        wrong = stage.wrong("web1")
        assert wrong[0].startswith(f"wrong flow not compiled: cookie={own:#x},table=71")
        assert any("ARP as 203.0.113.1, not its address: passes" in each for each in wrong)


def test_a_flow_with_other_actions_is_named_as_it_is_and_as_it_should_be(stage: Stage) -> None:
    ofport = stage.ofport("web1")
    with stage.changed("mod-flows", f"table=84,reg5={ofport},actions=drop"):
        wrong = "\n".join(stage.wrong("web1"))
        assert "changed, should be: cookie=0x" in wrong
        assert f"table=84,priority=100,reg5={ofport:#x} actions=output:{ofport}" in wrong
        assert f"table=84,priority=100,reg5={ofport:#x} actions=drop" in wrong


def test_a_lost_member_of_a_remote_group_is_named_for_the_ports_that_refer_to_it(
    stage: Stage,
) -> None:
    """web1 and web2 refer to the group web; the port of the group open to none."""
    member = stage.vms["web2"].ip
    with stage.changed("del-flows", f"table=82,ip,nw_src={member}"):
        assert f"nw_src={member}" in "\n".join(stage.wrong("web1"))
        assert f"nw_src={member}" in "\n".join(stage.wrong("web2"))
        assert stage.wrong("open") == []


def test_a_member_of_a_remote_group_that_nothing_desires_is_named(stage: Stage) -> None:
    member = next(
        line
        for line in stage.switch.flows("br-int", "table=82")
        if f"nw_src={stage.vms['web2'].ip} " in line
    )
    with stage.changed("add-flow", member.replace(stage.vms["web2"].ip, "10.66.0.1")):
        assert "nw_src=10.66.0.1" in "\n".join(stage.wrong("web1"))
        assert stage.wrong("open") == []


def test_a_lost_delivery_is_named(stage: Stage) -> None:
    mac = stage.vms["web1"].mac
    with stage.changed("del-flows", f"table=73,dl_dst={mac}"):
        assert f"dl_dst={mac}" in stage.wrong("web1")[0]
        assert stage.wrong("web2") == []


def test_a_lost_flow_of_the_network_is_named(stage: Stage) -> None:
    with stage.changed("del-flows", "table=0,dl_vlan=301"):
        assert "dl_vlan=301" in stage.wrong("web1")[0]
        assert stage.wrong("local") == []


def test_a_lost_translation_on_the_physical_bridge_is_named(stage: Stage) -> None:
    with stage.changed("del-flows", "dl_vlan=*", bridge="br-phys"):
        (wrong,) = stage.wrong("web1")
        assert "set_field:4397->vlan_vid" in wrong
        assert stage.wrong("local") == []


def test_a_wrong_tag_is_named(stage: Stage) -> None:
    tap = stage.vms["web1"].tap
    tag = stage.switch.vsctl("get", "Port", tap, "tag")
    stage.switch.vsctl("set", "Port", tap, "tag=77")
    try:
        assert stage.wrong("web1") == [f"wrong wiring the tag of {tap} is 77 instead of {tag}"]
    finally:
        stage.switch.vsctl("set", "Port", tap, f"tag={tag}")


def test_a_link_that_is_down_is_named(stage: Stage) -> None:
    tap = stage.vms["web1"].tap
    stage.switch.namespace.ip("link", "set", tap, "down")
    try:
        (wrong,) = stage.wrong("web1")
        assert wrong.startswith("wrong wiring ")
        assert tap in wrong
    finally:
        stage.switch.namespace.ip("link", "set", tap, "up")


def test_changed_rules_that_the_agent_has_not_applied_are_named(stage: Stage) -> None:
    api = stage.site.api
    group = api.port(stage.vms["local"].port_id)["security_groups"][0]
    before = api.request("GET", f"/security-groups/{group}")["security_group"]
    rules = [
        *before["security_group_rules"],
        ingress(protocol="tcp", port_range_min=22, port_range_max=22),
    ]
    body = {"name": before["name"], "security_group_rules": rules}
    api.put("security-groups", group, body)
    try:
        wrong = stage.wrong("local")
        assert "tp_dst=22" in wrong[0]
        assert "missing" in wrong[0]
    finally:
        body["security_group_rules"] = before["security_group_rules"]
        api.put("security-groups", group, body)


def test_a_port_that_is_not_plugged(stage: Stage) -> None:
    port_id = new_id()
    body = {
        "network_id": stage.site.api.port(stage.vms["web1"].port_id)["network_id"],
        "mac_address": random_mac(),
        "binding:host_id": HOST,
    }
    stage.site.api.put("ports", port_id, body)
    try:
        (wrong,) = stage.wrong(port_id)
        assert wrong.startswith("wrong interface no interface on the integration bridge")
    finally:
        stage.site.api.delete("ports", port_id)


@pytest.mark.parametrize(
    ("binding", "words"),
    [
        ({"binding:host_id": "compute-9"}, "The port is bound to host compute-9, and this is"),
        ({}, "is bound to no host"),
    ],
)
def test_a_port_of_another_host_or_of_none(
    stage: Stage, binding: dict[str, str], words: str
) -> None:
    port_id = new_id()
    network = stage.site.api.port(stage.vms["web1"].port_id)["network_id"]
    body = {"network_id": network, "mac_address": random_mac(), **binding}
    stage.site.api.put("ports", port_id, body)
    try:
        ran = stage.run(port_id)
        assert ran.returncode == 1
        assert words in ran.stderr
        assert ran.stderr.count("\n") == 1
    finally:
        stage.site.api.delete("ports", port_id)


def test_a_port_that_does_not_exist(stage: Stage) -> None:
    ran = stage.run(new_id())
    assert ran.returncode == 4
    assert ran.stderr.startswith("there is no port")


def test_a_user_who_may_not_use_the_sockets(stage: Stage, tmp_path: Path) -> None:
    words = [str(PROGRAM), "port", "verify", "web1", "--config-file", os.devnull]
    options = {
        "OS_AGENT_FLOWS__HOST": HOST,
        "OS_AGENT_FLOWS__OVSDB_CONNECTION": stage.switch.database,
        "OS_AGENT_FLOWS__OVS_RUN_DIR": str(stage.switch.run_dir),
    }
    ran = subprocess.run(
        stage.switch.namespace.argv(User().argv(words, tmp_path)),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **options},
    )
    assert ran.returncode == 1
    assert ran.stderr.startswith("This user may not use the sockets of Open vSwitch")
    assert ran.stderr.count("\n") == 1


def test_a_switch_that_is_away(stage: Stage) -> None:
    stage.switch.stop_vswitchd()
    try:
        ran = stage.run("web1")
        assert ran.returncode == 1
        assert ran.stderr.startswith("The switch cannot be read: ")
        assert ran.stderr.count("\n") == 1
    finally:
        stage.switch.start_vswitchd()
