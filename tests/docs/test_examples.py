"""The examples of the contributors' guide run, in the order of the page."""

import re
from pathlib import Path
from typing import Any

import pytest

from agent_flows.server.core.gate import Settings
from lab.databases import SQLite
from lab.model import new_id
from lab.server_parts import FakeAgent, running

PAGE = Path(__file__).parents[2] / "doc" / "contributor" / "extend.md"


@pytest.fixture(scope="module")
def examples() -> dict[str, Any]:
    """What the examples of the page define; their own assertions hold."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {"__name__": "examples"}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)  # noqa: S102  our own page
    return names


def test_the_page_has_an_example_of_each(examples: dict[str, Any]) -> None:
    assert {"LimitRate", "Rates", "FailuresToo", "report"} <= examples.keys()


def test_the_consumer_publishes_what_failed_and_the_store_decides(
    examples: dict[str, Any], tmp_path: Path
) -> None:
    published: list[str] = []
    with running(SQLite(tmp_path).new_url()) as server:
        server.store = examples["FailuresToo"](
            server.database,
            server.directory,
            server.caster,
            server.metrics,
            Settings(),
            rules=server.rules,
        )
        server.store.publish = published.append
        network, port = new_id(), new_id()
        server.put("networks", network, network_type="local")
        place = {"network_id": network, "binding:host_id": "host-a"}
        server.put("ports", port, mac_address="fa:16:3e:00:00:01", **place)
        agent = FakeAgent(server, "host-a")
        agent.send(agent.report(port, fails="apply-security-groups"))
        assert server.state(port) == ("DOWN", "OUT_OF_SYNC")
    assert len(published) == 1
    assert published[0].startswith(f"host-a: {port} apply-security-groups")
