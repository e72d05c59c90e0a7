"""A server that answers over HTTP, and Chromium that looks at its page."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from selenium import webdriver

from agent_flows import conf as options
from agent_flows.server.standalone.api.wsgi import WsgiServer
from lab.browser import chromium
from lab.model import new_id
from lab.server_parts import FakeAgent, Server, running


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running(f"sqlite:///{tmp_path / 'server.sqlite'}", api={"bind_port": 0}) as made:
        yield made


@pytest.fixture
def address(server: Server) -> Iterator[str]:
    """Where the page is."""
    assert server.conf[options.API].bind_host == "127.0.0.1"
    serving = WsgiServer(server.rest.app, server.conf)
    serving.start()
    yield f"http://127.0.0.1:{serving.port}"
    serving.stop()


@pytest.fixture
def agent(server: Server) -> FakeAgent:
    return FakeAgent(server, "host-a")


@pytest.fixture
def make_port(server: Server) -> Callable[..., str]:
    """Makes ports bound to host-a, with these names."""
    network, group, made = new_id(), new_id(), []
    server.put("networks", network, network_type="local")
    server.put("security-groups", group, name="web")

    def make(name: str) -> str:
        made.append(new_id())
        body = {
            "name": name,
            "network_id": network,
            "mac_address": f"fa:16:3e:00:00:{len(made):02x}",
            "security_groups": [group],
            "binding:host_id": "host-a",
        }
        server.put("ports", made[-1], **body)
        return made[-1]

    return make


@pytest.fixture(scope="session")
def start_browser() -> Iterator[Callable[..., webdriver.Chrome]]:
    """Starts Debian's Chromium, without a window; with JavaScript by default."""
    with ExitStack() as stack:
        yield lambda **chosen: stack.enter_context(chromium(**chosen))


@pytest.fixture(scope="session")
def browser(start_browser: Callable[..., webdriver.Chrome]) -> webdriver.Chrome:
    return start_browser()
