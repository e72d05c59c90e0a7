"""Whatever a request contains: it is refused in few words and changes nothing, or it means what it
may mean.

Ten thousand requests are tried in every run, half of each kind.
"""

import json
import random
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import falcon.testing
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from lab.model import new_id
from lab.server_parts import FakeAgent, Server, running
from tests.unit import hostile

SEEDS = st.integers(0, 2**32 - 1)
AT_ONCE = 500
EXAMPLES = 10
METHODS = ("GET", "HEAD", "OPTIONS", "PUT", "POST", "PATCH", "DELETE", "TRACE")
SCRIPT = "<script>alert(1)</script>"
PAGES = (
    "/",
    "/page/ports",
    "/page/ports/{resource_id}",
    "/page/hosts",
    "/page/hosts/{resource_id}",
)
NETWORK, GROUP, ADDRESSES, PORT = (new_id() for _ in range(4))

DOCUMENTS: Mapping[str, Any] = {
    "networks": [
        {"id": NETWORK, "name": "blue", "network_type": "vlan", "segmentation_id": 5}
        | {"physical_network": "physnet1", "mtu": 1500}
    ],
    "address_groups": [{"id": ADDRESSES, "name": "offices", "addresses": ["10.1.0.0/24"]}],
    "security_groups": [
        {
            "id": GROUP,
            "name": "web",
            "stateful": True,
            "security_group_rules": [
                {"direction": "ingress", "protocol": "tcp"}
                | {"port_range_min": 80, "port_range_max": 90, "remote_group_id": GROUP},
                {"direction": "egress", "ethertype": "IPv6", "remote_ip_prefix": "2001:db8::/64"},
                {"direction": "ingress", "remote_address_group_id": ADDRESSES},
            ],
        }
    ],
    "ports": [
        {
            "id": PORT,
            "name": "web-1",
            "network_id": NETWORK,
            "mac_address": "fa:16:3e:00:00:01",
            "fixed_ips": [{"ip_address": "10.0.0.1"}],
            "allowed_address_pairs": [{"ip_address": "10.2.0.0/24"}],
            "security_groups": [GROUP],
            "binding:host_id": "host-a",
        }
    ],
}
BODIES = [
    ("POST", "/documents", DOCUMENTS),
    *[
        ("PUT", f"/{plural.replace('_', '-')}/{made['id']}", {plural[:-1]: made})
        for plural, [made] in DOCUMENTS.items()
    ],
    *[
        ("POST", f"/{plural.replace('_', '-')}", {plural: made})
        for plural, made in DOCUMENTS.items()
    ],
]


class Watched:
    """A server, and whether a request changed anything in its database."""

    def __init__(self, server: Server, file: Path) -> None:
        self.server = server
        self._file = sqlite3.connect(file)

    def close(self) -> None:
        self._file.close()

    def state(self) -> int:
        """Rises with each commit that changes something (SQLite's manual, data_version)."""
        [(version,)] = self._file.execute("PRAGMA data_version")
        return int(version)

    def ask(self, method: str, path: str, **request: Any) -> falcon.testing.Result:
        """Its answer, with what holds of each checked."""
        before = self.state()
        answer = self.server.rest.simulate_request(method, path, **request)
        asked = (method, path, request)
        assert answer.status_code < 500, asked
        assert "Traceback" not in answer.text, asked
        assert SCRIPT not in answer.text or "json" in answer.headers["content-type"], asked
        if answer.status_code >= 400:
            assert self.state() == before, asked
            if "json" in answer.headers.get("content-type", "") and answer.text:
                short(answer.json["error"])
        return answer


def short(error: Mapping[str, Any]) -> None:
    """One printable line, whatever was sent."""
    assert set(error) == {"type", "message", "field"}, error
    for text in (error["message"], error["field"] or ""):
        assert len(text) <= 1_000, text
        assert text.isprintable(), text


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    file = tmp_path_factory.mktemp("hostile") / "server.sqlite"
    with running(f"sqlite:///{file}") as server:
        put = server.rest.simulate_post("/documents", body=json.dumps(DOCUMENTS))
        assert put.status_code == 200, put.text
        agent = FakeAgent(server, "host-a")
        agent.send(agent.report(PORT, fails="apply-security-groups"))
        with closing(Watched(server, file)) as made:
            yield made


def word(draw: random.Random) -> str:
    return hostile.text(draw)[:300]


def value(draw: random.Random) -> str:
    """Of a parameter: a hostile one, or what one of them takes."""
    if draw.random() < 0.5:
        return word(draw)
    known = (PORT, "host-a", "FAILED", "OUT_OF_SYNC", "id", "asc", "0", "2", "true", "2026-01-01")
    return draw.choice(known)


@given(SEEDS)
@settings(max_examples=EXAMPLES, phases=[Phase.generate])
def test_a_question_is_refused_or_answered_and_changes_nothing(watched: Watched, seed: int) -> None:
    draw = random.Random(seed)
    documented = watched.server.rest.simulate_get("/openapi.json").json["paths"]
    paths = [*documented, *PAGES]
    names = sorted(
        {
            parameter["name"]
            for operations in documented.values()
            for parameter in operations.get("get", {}).get("parameters", ())
            if "name" in parameter
        }
    )
    before = watched.state()
    for _ in range(AT_ONCE):
        method, thing = "GET", draw.choice((PORT, "host-a", word(draw)))
        if draw.random() < 0.2:
            method, thing = draw.choice(METHODS), word(draw)
        query = [
            (draw.choice(names) if draw.random() < 0.9 else word(draw), value(draw))
            for _ in range(draw.randrange(4))
        ]
        watched.ask(
            method,
            draw.choice(paths).replace("{resource_id}", quoted(thing)),
            query_string=urlencode(query, errors="replace"),
        )
    assert watched.state() == before


def quoted(thing: str) -> str:
    return quote(thing, safe="", errors="replace")


def encoded(draw: random.Random, document: Any) -> bytes:
    """As JSON, or nearly so."""
    try:
        raw = json.dumps(document).encode()
    except RecursionError:
        return b"[" * 100_000
    if draw.random() < 0.1:
        at = draw.randrange(len(raw) + 1)
        raw = raw[:at] + draw.randbytes(draw.randrange(4)) + raw[at + draw.randrange(4) :]
    return raw


@given(SEEDS)
@settings(max_examples=EXAMPLES, phases=[Phase.generate])
def test_a_body_is_refused_and_changes_nothing_or_is_taken(watched: Watched, seed: int) -> None:
    draw = random.Random(seed)
    answers: Counter[int] = Counter()
    for _ in range(AT_ONCE):
        method, path, document = draw.choice(BODIES)
        body = encoded(draw, hostile.changed(draw, document))
        answers[watched.ask(method, path, body=body).status_code] += 1
    assert answers.keys() <= {200, 201, 400, 409, 413}, answers
    assert min(answers[200], answers[400]) > AT_ONCE / 50, answers
