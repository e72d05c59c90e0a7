"""The agent as a user who is not root: a process with what its unit gives it, on a real switch."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_flows.report import Trouble
from lab.cloud import Cloud, egress_to_anywhere, ingress, random_mac
from lab.process import Daemon, wait_until
from lab.product import Site
from lab.switch import Switch
from lab.unprivileged import AGENT as USER
from lab.unprivileged import User, helper_of
from lab.vm import Vm

HOST = "compute-1"
NET_ADMIN = 1 << 12  # linux/capability.h
SECONDS = 30


@pytest.fixture
def switch() -> Iterator[Switch]:
    with Switch(group=USER.id) as running:
        yield running


@pytest.fixture
def site(switch: Switch) -> Iterator[Site]:
    with Site(switch, HOST, user=USER) as made:
        made.start_all_in_one()
        yield made


@pytest.fixture
def vms(switch: Switch, site: Site) -> Iterator[tuple[Vm, Vm]]:
    """``one`` may reach port 80 of ``two``, both wired."""
    cloud = Cloud(site.api, HOST)
    network = cloud.network(mtu=1400)
    groups = cloud.group(
        "web",
        [*egress_to_anywhere(), ingress(protocol="tcp", port_range_min=80, port_range_max=80)],
    )
    with (
        Vm(switch, "one", random_mac(), ["10.0.0.1/24"]) as one,
        Vm(switch, "two", random_mac(), ["10.0.0.2/24"]) as two,
    ):
        for vm in (one, two):
            cloud.port(vm, network, [groups])
            vm.plug()
            vm.listen(80)
            vm.listen(81)
        for vm in (one, two):
            site.api.wait_port(vm.port_id, SECONDS, status="ACTIVE", sync_state="IN_SYNC")
        yield one, two


def judged(one: Vm, two: Vm) -> bool:
    return one.connect(two.ip, 80) and not one.connect(two.ip, 81)


def rights(status: Path) -> tuple[int, set[int]]:
    """User and capabilities: permitted, effective, inheritable and ambient ones."""
    text = status.read_text()
    user = re.search(r"^Uid:\t(\d+)\t\1\t\1\t\1$", text, re.MULTILINE)
    assert user
    held = re.findall(r"^Cap(?:Prm|Eff|Inh|Amb):\t([0-9a-f]+)$", text, re.MULTILINE)
    return int(user[1]), {int(value, 16) for value in held}


def test_packets_are_judged_and_links_are_raised(vms: tuple[Vm, Vm], site: Site) -> None:
    one, two = vms
    wait_until(lambda: judged(one, two), SECONDS, "packets are judged")
    link = site.switch.namespace.ip("link", "show", two.tap)
    assert "mtu 1400" in link
    assert ",UP" in link
    site.switch.namespace.ip("link", "set", two.tap, "down")
    wait_until(
        lambda: ",UP" in site.switch.namespace.ip("link", "show", two.tap), SECONDS, "it is up"
    )
    wait_until(lambda: judged(one, two), SECONDS, "packets are judged")


def test_only_the_helper_has_a_capability_and_only_one(vms: tuple[Vm, Vm], site: Site) -> None:
    helper = helper_of(site.all_in_one)
    assert rights(Path(f"/proc/{helper}/status")) == (USER.id, {0, NET_ADMIN})
    threads = list(Path(f"/proc/{site.all_in_one.pid}/task").iterdir())
    assert len(threads) > 5
    # A thread may have ended.
    for status in filter(Path.exists, (thread / "status" for thread in threads)):
        assert rights(status) == (USER.id, {0})
    monitor = Path(f"/proc/{site.all_in_one.pid}/task").glob("*/children")
    started = {child for each in monitor for child in each.read_text().split()} - {str(helper)}
    assert started
    for child in started:
        assert rights(Path(f"/proc/{child}/status")) == (USER.id, {0})


def test_sockets_of_a_new_switch_and_a_new_bridge_are_reached(
    vms: tuple[Vm, Vm], site: Site
) -> None:
    one, two = vms
    site.switch.stop()
    site.switch.start()
    wait_until(lambda: judged(one, two), SECONDS, "the new switch is wired")
    site.switch.vsctl("del-br", "br-int")
    wait_until(lambda: "br-int" in site.switch.vsctl("list-br"), SECONDS, "it is made again")
    for vm in vms:
        vm.plug()
    wait_until(lambda: judged(one, two), SECONDS, "the new bridge is wired")


def test_end_of_the_helper_ends_the_agent_with_an_error_and_leaves_the_flows(
    vms: tuple[Vm, Vm], site: Site
) -> None:
    helper = helper_of(site.all_in_one)
    os.kill(helper, signal.SIGKILL)
    # A signal that does nothing. systemd starts again what ends with an error.
    assert site.all_in_one.end(signal.SIGCONT, SECONDS) == 1
    assert "The privileged helper has ended" in site.all_in_one.last_words()
    assert judged(*vms)
    site.start_all_in_one()
    assert helper_of(site.all_in_one) != helper


def test_helper_ends_with_an_agent_that_is_killed(site: Site) -> None:
    helper = Path(f"/proc/{helper_of(site.all_in_one)}")
    os.kill(site.all_in_one.pid, signal.SIGKILL)
    wait_until(lambda: not helper.exists(), SECONDS, "the helper has ended")


@pytest.mark.parametrize("program", ["agent", "all_in_one"])
def test_without_the_capability_it_does_not_start_and_says_why(
    switch: Switch, program: str
) -> None:
    with Site(switch, HOST, user=User()) as site:
        daemon: Daemon = getattr(site, program)
        daemon.start()
        wait_until(lambda: not daemon.running, SECONDS, "it has ended")
        last = daemon.last_words().splitlines()[-1]
        assert last.startswith("agent-flows")
        assert "needs CAP_NET_ADMIN" in last


@pytest.mark.parametrize(
    ("closed", "trouble"), [("db.sock", Trouble.OVSDB), ("br-int.mgmt", Trouble.SWITCH)]
)
def test_socket_that_it_may_not_use_is_its_trouble(
    switch: Switch, closed: str, trouble: Trouble
) -> None:
    switch.add_bridge("br-int")
    path = switch.run_dir / closed
    path.chmod(0o700)
    with Site(switch, HOST, user=USER) as site:
        site.start_all_in_one()

        def line() -> str:
            agents = site.api.find("agents")
            return str(agents[0]["state"]["troubles"].get(trouble, "")) if agents else ""

        wait_until(lambda: "Permission denied" in line(), SECONDS, "the trouble says so")
        assert str(path) in line()
        path.chmod(0o770)
        wait_until(lambda: not line(), SECONDS, "it is over")
