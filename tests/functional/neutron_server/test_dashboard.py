"""``agent-flows dashboard`` on Neutron's API."""

import argparse
import html
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http import cookiejar
from pathlib import Path
from typing import Any

import pytest
from falcon import testing

from agent_flows import errors
from agent_flows.dashboard import service
from agent_flows.page import pages
from tests.functional.neutron_server.stage import PROJECT, Body, Host, Neutron

_COMMAND = Path(sys.executable).parent / "agent-flows"
_SECONDS = 60
HOSTILE = "<script>alert('x')</script>"


class Pages:
    """The pages as a browser with the key gets them."""

    def __init__(self, app: Any) -> None:
        self._client = testing.TestClient(app, headers={"Cookie": "cookie=key"})

    def answer(self, path: str) -> tuple[int, str]:
        got = self._client.simulate_get(path)
        return got.status_code, got.text

    def shown(self, path: str) -> str:
        status, text = self.answer(path)
        assert status == 200, text
        return text

    def words(self, path: str) -> str:
        """What a person reads of it."""
        return _words(self.shown(path))

    def words_of_list(self, path: str) -> str:
        """What a person reads who follows the links to the next page."""
        shown = self.shown(path)
        following = re.search(r'<a rel="next" href="([^"]*)"', shown)
        if following is None:
            return _words(shown)
        return _words(shown) + " " + self.words_of_list(html.unescape(following[1]))


def _words(page: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", page)).split())


class Browser(Pages):
    """Follows redirects and keeps cookies; without JavaScript."""

    def __init__(self, address: str) -> None:
        self.address, _, self.key = address.partition("?")
        jar = urllib.request.HTTPCookieProcessor(cookiejar.CookieJar())
        self._opener = urllib.request.build_opener(jar)

    def answer(self, path: str) -> tuple[int, str]:
        try:
            with self._opener.open(self.address + path.removeprefix("/"), timeout=_SECONDS) as got:
                return got.status, got.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode()


@pytest.fixture(scope="module")
def endpoint(process: Neutron) -> str:
    return f"http://127.0.0.1:{process.do('serve')}"


@pytest.fixture(scope="module")
def browser(endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """At the command's page of a cloud in clouds.yaml; Ctrl-C ends the command."""
    cloud = {"auth_type": "none", "auth": {"endpoint": endpoint}}
    file = tmp_path_factory.mktemp("cloud") / "clouds.yaml"
    file.write_text(json.dumps({"clouds": {"mine": cloud}}))
    env = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
    with subprocess.Popen(
        [_COMMAND, "dashboard", "--os-cloud", "mine", "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**env, "OS_CLIENT_CONFIG_FILE": str(file)},
    ) as process:
        try:
            assert process.stdout is not None
            opened = Browser(process.stdout.readline().strip())
            opened.shown(f"/?{opened.key}")
            yield opened
            process.send_signal(signal.SIGINT)
            assert process.wait(_SECONDS) == 0
        finally:
            process.kill()


@pytest.fixture
def failed(ours: Host, make_port: Callable[..., Body]) -> str:
    """A port with a hostile name of which a task failed."""
    port = str(make_port(ours, name=HOSTILE)["id"])
    ours.plug(port)
    ours.reports(port)
    ours.reports(port, fails="bind-vlan", attempt=2)
    return port


def test_an_operator_comes_from_the_overview_to_the_failure(
    ours: Host, failed: str, browser: Browser
) -> None:
    overview = browser.shown("/")
    assert "out of sync" in browser.words("/")
    assert 'href="/page/ports/' in overview
    assert 'href="/page/hosts/' in overview
    # Other tests' ports are out of sync, too, and the overview has the first ones.
    of_this_host = browser.words(f"/page/hosts/{ours.name}")
    assert f"To do: {errors.remedy('SwitchError')}." in of_this_host
    of_host = browser.shown(f"/page/ports?host={ours.name}&sync_state=NOT_IN_SYNC")
    assert f'href="/page/ports/{failed}"' in of_host
    assert f'href="/page/hosts/{ours.name}"' in of_host
    read = browser.words(f"/page/ports/{failed}")
    for expected in (
        "OUT_OF_SYNC since",
        f"on {ours.name}",
        "Last: wire, attempt 2, failed",
        "bind-vlan failed: SwitchError: the switch refused a flow",
        "OFPFMFC_TABLE_FULL",
        "Earlier attempts and drifts wire, attempt 1, succeeded",
    ):
        assert expected in read
    assert "<script>alert" not in overview + of_host + browser.shown(f"/page/ports/{failed}")


def test_ports_are_found_by_state_host_name_and_id(
    ours: Host, active: str, failed: str, browser: Browser
) -> None:
    def ports(query: str) -> set[str]:
        found = re.findall(r'href="/page/ports/([0-9a-f-]{36})"', browser.shown(query))
        return set(found)

    path = f"/page/ports?host={ours.name}"
    assert ports(path) == {active, failed}
    assert ports(f"{path}&sync_state=IN_SYNC") == {active}
    assert ports(f"{path}&sync_state=NOT_IN_SYNC") == {failed}
    assert failed in ports(f"/page/ports?name={urllib.request.quote(HOSTILE)}")
    assert "OUT_OF_SYNC since" in browser.words(f"/page/ports?name={failed}")


def test_a_host_shows_trouble_queue_outbox_and_tasks(
    ours: Host, failed: str, browser: Browser
) -> None:
    state = {"waiting": 17, "unreported": 4, "troubles": {"switch": "ovs-vswitchd is away"}}
    ours.neutron.do("heartbeat", host=ours.name, state=state)
    read = browser.words(f"/page/hosts/{ours.name}")
    for expected in (
        "alive, last heartbeat",
        "switch: ovs-vswitchd is away",
        "17",
        "Last failures",
        "Slowest of the last",
    ):
        assert expected in read
    # Other tests' hosts are in these lists, too.
    assert "Hosts in trouble" in browser.words("/")
    hosts = browser.words_of_list("/page/hosts")
    assert re.search(rf"\b{ours.name} alive [\d ]*switch: ovs-vswitchd is away", hosts)


def test_what_is_not_there_and_what_cannot_be_are_pages(browser: Browser) -> None:
    for path, status in (
        ("/page/ports/none", 404),
        ("/page/hosts/none", 404),
        ("/page/nothing", 404),
        ("/page/ports?sync_state=%3Cscript%3E", 400),
    ):
        code, text = browser.answer(path)
        assert code == status
        assert text.startswith("<!DOCTYPE html>")
        assert "<script>" not in text


def test_nobody_sees_the_page_without_its_key(browser: Browser) -> None:
    for path in ("/", "/?key=guessed", "/page/hosts"):
        status, text = Browser(browser.address).answer(path)
        assert status == 403
        assert "open the address with a key" in text
    status, _ = Browser(browser.address).answer("/page/style.css")
    assert status == 200


@pytest.fixture
def connected(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Pages]:
    """The pages for a member of the project."""
    for name in os.environ:
        if name.startswith("OS_"):
            monkeypatch.delenv(name)

    def connect(project: str) -> Pages:
        options = argparse.Namespace(
            os_auth_type="admin_token",
            os_endpoint=endpoint,
            os_token=project,
            os_cacert=None,
            insecure=False,
        )
        client = service.connect(options, None, None)
        return Pages(service.application(client, service.Visitors("key", "cookie")))

    return connect


def test_the_owner_of_a_network_sees_that_the_state_of_others_ports_is_not_shown(
    ours: Host, make_port: Callable[..., Body], connected: Callable[[str], Pages]
) -> None:
    port = make_port(ours, project_id="third", name="theirs")["id"]
    assert "not shown to you" in connected(PROJECT).words("/page/ports?name=theirs")
    assert "not shown to you" in connected(PROJECT).words(f"/page/ports/{port}")
    assert "SYNCING" in connected("third").words("/page/ports?name=theirs")


def test_a_project_sees_no_more_than_neutron_shows_it(
    ours: Host, failed: str, connected: Callable[[str], Pages]
) -> None:
    owner, stranger = connected(PROJECT), connected("another")
    read = owner.words("/")
    assert "out of sync" in read
    assert ours.name not in read
    port = owner.words(f"/page/ports/{failed}")
    assert "bind-vlan failed: SwitchError" in port
    assert ours.name not in port
    assert "OFPFMFC_TABLE_FULL" not in port
    assert owner.answer(f"/page/hosts/{ours.name}")[0] == 404
    assert "No agent" in owner.words("/page/hosts")
    assert "There are no ports" in stranger.words("/")
    assert stranger.answer(f"/page/ports/{failed}")[0] == 404
    assert stranger.answer(f"/page/ports?host={ours.name}")[1].count("/page/ports/") == 0


def test_long_lists_have_pages(
    make_port: Callable[..., Body],
    connected: Callable[[str], Pages],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Neutron takes a quarter of a second for a port, too long for a whole page of them.
    monkeypatch.setattr(pages, "_PAGE", 2)
    made = {make_port(name="many")["id"] for _ in range(5)}
    owner, seen = connected(PROJECT), list[str]()
    path = "/page/ports?name=many"
    while path:
        text = owner.shown(path)
        seen += re.findall(r'href="/page/ports/([0-9a-f-]{36})"', text)
        after = re.search(r'rel="next" href="([^"]*)"', text)
        path = html.unescape(after[1]) if after else ""
    assert len(seen) == 5
    assert set(seen) == made
