"""The OpenAPI document is what the API does: schemathesis asks a real server on a real database."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_flows.report import FlowName
from agent_flows.server.standalone.api.wsgi import WsgiServer
from lab.databases import PostgreSQL
from lab.model import new_id
from lab.server_parts import FakeAgent, Server, running

SECONDS = 20
"""How long requests are made up, without ``--examples``: about 2,000 of them."""
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
)


def fill(server: Server) -> None:
    """Something of every kind: ports in and out of sync, tasks, a problem, agents."""
    network, group, addresses = new_id(), new_id(), new_id()
    server.put("networks", network, network_type="local")
    server.put("address-groups", addresses, addresses=["10.1.0.0/24"])
    rules = [
        {"direction": "ingress", "protocol": "tcp", "port_range_min": 80, "port_range_max": 80},
        {"direction": "egress", "remote_address_group_id": addresses},
    ]
    server.put("security-groups", group, security_group_rules=rules)
    ports = [new_id() for _ in range(4)]
    for place, port in enumerate(ports):
        server.put(
            "ports",
            port,
            network_id=network,
            mac_address=f"fa:16:3e:00:00:{place:02x}",
            fixed_ips=[{"ip_address": f"10.0.0.{place + 1}"}],
            allowed_address_pairs=[{"ip_address": "10.2.0.0/24"}],
            security_groups=[group],
            **{"binding:host_id": "host-a"},
        )
    agent = FakeAgent(server, "host-a")
    agent.beat(version="1", troubles={"switch": "gone"})
    agent.wire(ports[0])
    failed = agent.report(ports[1], fails="apply-security-groups")
    agent.send(failed, agent.report(ports[2], FlowName.AUDIT, fails="compare-switch"))


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Where the API answers."""
    with PostgreSQL() as database, running(database.new_url(), api={"bind_port": 0}) as server:
        fill(server)
        served = WsgiServer(server.rest.app, server.conf)
        served.start()
        try:
            yield f"http://127.0.0.1:{served.port}"
        finally:
            served.stop()


def test_every_answer_is_as_the_document_has_it(
    address: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    examples = request.config.getoption("--examples", default=None)
    amount = (
        ("--max-examples", str(examples))
        if examples
        else ("--max-examples", "30", "--seed", "1", "--max-time", str(SECONDS))
    )
    asked = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-m", "schemathesis.cli"),
            *("run", f"{address}/openapi.json", "--checks", ",".join(CHECKS)),
            *amount,
            *("--continue-on-failure", "--no-shrink", "--no-color", "--request-timeout", "20"),
        ],
        cwd=tmp_path,
        env={
            **os.environ,
            "SCHEMATHESIS_HOOKS": "tests.docs.formats",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        },
        capture_output=True,
        text=True,
        timeout=None if examples else 240,
        check=False,
    )
    print(asked.stdout)
    assert asked.returncode == 0, asked.stdout[-20_000:] + asked.stderr[-5_000:]


def test_the_document_has_every_resource_and_every_field(address: str) -> None:
    with urllib.request.urlopen(f"{address}/openapi.json") as answer:  # noqa: S310  our own server
        document = json.load(answer)
    assert document["openapi"].startswith("3.1")
    assert {"/ports/{resource_id}", "/documents", "/healthz"} <= document["paths"].keys()
    port = document["components"]["schemas"]["port_shown"]["properties"]
    with urllib.request.urlopen(f"{address}/ports") as answer:  # noqa: S310
        shown = json.load(answer)["ports"][0]
    assert port.keys() == shown.keys()
