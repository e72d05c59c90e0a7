"""agent-flows-server as a process, behind keystonemiddleware, with an identity service."""

import contextlib
import http.client
import json
import re
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.identity import PASSWORD, IdentityService
from lab.process import Daemon, free_port, wait_until
from lab.product import MEMORY_BUS, as_text

PROGRAM = Path(sys.executable).parent / "agent-flows-server"
SECONDS = 30
NETWORK = f"/networks/{uuid.UUID(int=1)}"
PORT = f"/ports/{uuid.UUID(int=2)}"
NETWORK_BODY = {"network": {"network_type": "local"}}
PORT_BODY = {
    "port": {
        "network_id": str(uuid.UUID(int=1)),
        "mac_address": "fa:16:3e:00:00:01",
        "binding:host_id": "compute-1",
    }
}
READABLE = (
    "/networks", "/address-groups", "/security-groups", "/ports", "/tasks", "/problems", "/agents",
    "/metrics", "/openapi.json", "/", "/page/ports", "/page/hosts", NETWORK, PORT,
    "/agents/compute-1",
)  # fmt: skip
WRITES = (
    ("PUT", NETWORK, NETWORK_BODY),
    ("DELETE", PORT, None),
    ("POST", f"{PORT}/resync", {}),
    ("POST", "/documents", {"networks": []}),
    ("DELETE", "/agents/compute-1", None),
)


@dataclass(frozen=True)
class Answer:
    status: int
    text: str
    headers: http.client.HTTPMessage

    @property
    def error(self) -> dict[str, Any]:
        return dict(json.loads(self.text)["error"])


class Rest:
    """A server whose tokens an identity service issues. Every token sent is remembered."""

    def __init__(self, identity: IdentityService, directory: Path, **options: object) -> None:
        self.identity = identity
        self.port = free_port()
        config = directory / "agent_flows.conf"
        sections = {
            "DEFAULT": {"transport_url": MEMORY_BUS, "debug": "true"},
            "database": {"connection": f"sqlite:///{directory / 'server.sqlite'}"},
            "agent_flows_api": {
                "bind_host": "0.0.0.0",
                "bind_port": self.port,
                "auth_strategy": "keystone",
            },
            "keystone_authtoken": {**identity.middleware, "http_request_max_retries": 0, **options},
        }
        config.write_text(as_text(sections))
        self._log = directory / "log"
        argv = [str(PROGRAM), "--config-file", str(config)]
        self.daemon = Daemon("agent-flows-server", argv, self._log)
        self.sent = {PASSWORD}

    def ready(self) -> bool:
        with contextlib.suppress(OSError):
            return self("GET", "/healthz").status == 200
        return False

    def __call__(
        self, method: str, path: str, token: str | None = None, body: object = None, **more: str
    ) -> Answer:
        headers = {name.replace("_", "-"): value for name, value in more.items()}
        if token is not None:
            self.sent.add(token)
            headers["X-Auth-Token"] = token
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            raw = None if body is None else json.dumps(body)
            connection.request(method, path, raw, headers)
            answer = connection.getresponse()
            return Answer(answer.status, answer.read().decode(), answer.headers)
        finally:
            connection.close()

    def log(self) -> str:
        return self._log.read_text()

    def logged(self) -> list[str]:
        """The secrets that the log contains."""
        log = self.log()
        return [secret for secret in self.sent if secret.strip() and secret in log]


@pytest.fixture(scope="module")
def identity() -> Iterator[IdentityService]:
    with IdentityService() as service:
        yield service


@pytest.fixture(scope="module")
def rest(identity: IdentityService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rest]:
    """With a network and a port, and the log of all at the end without any secret."""
    made = Rest(identity, tmp_path_factory.mktemp("server"))
    with made.daemon:
        made.daemon.ready(made.ready, SECONDS)
        admin = identity.issue("admin")
        assert made("PUT", NETWORK, admin, NETWORK_BODY).status == 201
        assert made("PUT", PORT, admin, PORT_BODY).status == 201
        yield made
    assert made.logged() == []


Token = Callable[[IdentityService], str]


def revoked(identity: IdentityService) -> str:
    token = identity.issue("admin")
    identity.revoke(token)
    return token


INVALID: dict[str, Token] = {
    "blank": lambda identity: " ",
    "malformed": lambda identity: "%00../../auth' OR 1=1 --",
    "long": lambda identity: "x" * 8000,
    "forged": lambda identity: "gAAAAABthat-nobody-issued",
    "half": lambda identity: identity.issue("admin")[:-1],
    "revoked": revoked,
    # Keystone refuses these itself; one whose clock is late does not.
    "expired": lambda identity: identity.issue("admin", seconds=-1),
    "the password of the service": lambda identity: PASSWORD,
}


def test_without_a_token_nothing_but_health_is_answered(rest: Rest) -> None:
    for path in READABLE:
        assert (path, rest("GET", path).status) == (path, 401)
    for method, path, body in WRITES:
        assert (path, rest(method, path, body=body).status) == (path, 401)
    refused = rest("GET", "/ports")
    assert refused.error["type"] == "Unauthorized"
    assert "X-Auth-Token" in refused.error["message"]
    assert refused.headers["WWW-Authenticate"] == f'Keystone uri="{rest.identity.url}"'
    health = rest("GET", "/healthz")
    assert json.loads(health.text) == {"status": "ok", "failures": {}}


@pytest.mark.parametrize("kind", INVALID)
def test_token_that_is_not_valid_is_refused(rest: Rest, kind: str) -> None:
    token = INVALID[kind](rest.identity)
    assert rest("GET", PORT, token).error["type"] == "Unauthorized"
    assert rest("PUT", NETWORK, token, NETWORK_BODY).status == 401
    assert rest("GET", "/healthz", token).status == 200


def test_token_that_expires_while_it_is_cached_is_refused(rest: Rest) -> None:
    token = rest.identity.issue("admin", seconds=2)
    assert rest("GET", PORT, token).status == 200
    wait_until(lambda: rest("GET", PORT, token).status == 401, SECONDS, "it is refused")


def test_revoked_token_is_refused_when_its_time_in_the_cache_is_over(
    identity: IdentityService, tmp_path: Path
) -> None:
    rest = Rest(identity, tmp_path, token_cache_time=1)
    with rest.daemon:
        rest.daemon.ready(rest.ready, SECONDS)
        token = identity.issue("admin")
        assert rest("GET", "/ports", token).status == 200
        identity.revoke(token)
        wait_until(lambda: rest("GET", "/ports", token).status == 401, SECONDS, "it is refused")


def test_admin_reads_and_writes_and_a_reader_of_the_system_reads(rest: Rest) -> None:
    admin, reader = rest.identity.issue("admin"), rest.identity.issue("reader", system=True)
    for token in (admin, reader):
        for path in READABLE:
            expected = 404 if path == "/agents/compute-1" else 200
            assert (path, rest("GET", path, token).status) == (path, expected)
    for method, path, body in WRITES:
        assert (path, rest(method, path, reader, body).status) == (path, 403)
    assert rest("PUT", NETWORK, admin, NETWORK_BODY).status == 200


@pytest.mark.parametrize(
    "roles", [("reader",), ("member", "reader"), ("manager",), ("service",), ()]
)
def test_member_of_a_project_reads_and_writes_nothing(rest: Rest, roles: tuple[str, ...]) -> None:
    """No resource of this server belongs to a project: they are all somebody else's."""
    token = rest.identity.issue(*roles, project="other")
    for path in READABLE:
        answer = rest("GET", path, token)
        assert (path, answer.status) == (path, 403)
        assert "compute-1" not in answer.text
        assert PORT_BODY["port"]["mac_address"] not in answer.text
    for method, path, body in WRITES:
        assert (path, rest(method, path, token, body).status) == (path, 403)
    # The same answer as for a port that exists.
    missing = rest("GET", f"/ports/{uuid.uuid4()}", token)
    assert (missing.status, missing.text) == (403, rest("GET", PORT, token).text)


def test_headers_of_the_client_give_no_role_and_no_scope(rest: Rest) -> None:
    claims = {
        "X_Identity_Status": "Confirmed",
        "X_Roles": "admin",
        "X_User_Id": "u",
        "OpenStack_System_Scope": "all",
        "X_Is_Admin_Project": "True",
    }
    assert rest("GET", PORT, **claims).status == 401
    assert rest("GET", PORT, rest.identity.issue("reader", project="other"), **claims).status == 403


def test_service_token_makes_no_expired_token_valid_without_the_role(rest: Rest) -> None:
    expired = rest.identity.issue("admin", seconds=-1)
    other = rest.identity.issue("admin")
    rest.sent.add(other)
    assert rest("GET", PORT, expired, X_Service_Token=other).status == 401


def test_keystone_that_is_away_is_503_and_one_line_for_each_request(
    identity: IdentityService, tmp_path: Path
) -> None:
    rest = Rest(identity, tmp_path)
    with rest.daemon:
        rest.daemon.ready(rest.ready, SECONDS)
        seen, new = identity.issue("admin"), identity.issue("admin")
        assert rest("GET", "/ports", seen).status == 200
        identity.stop()
        before = len(rest.log())
        try:
            refused = rest("GET", "/ports", new)
            page = rest("GET", "/page/ports", new)
            assert rest("GET", "/ports", seen).status == 200
            assert rest("GET", "/healthz", new).status == 200
            assert rest("GET", "/ports").status == 401
        finally:
            identity.start()
        assert (refused.status, refused.error["type"]) == (503, "Unavailable")
        assert "Keystone" in refused.error["message"]
        assert (page.status, "Keystone does not answer" in page.text) == (503, True)
        # Of the three requests with the token that was not known yet.
        logged = re.findall(r" (?:WARNING|ERROR|CRITICAL) .*", rest.log()[before:])
        assert len(logged) == 3, logged
        assert all("Unable to validate token" in line for line in logged)
        assert rest("GET", "/ports", new).status == 200
        assert rest.logged() == []


def test_wrong_password_of_the_service_lets_nobody_in(
    identity: IdentityService, tmp_path: Path
) -> None:
    wrong = {"password": "a-wrong-password"}
    rest = Rest(identity, tmp_path, **wrong)
    with rest.daemon:
        rest.daemon.ready(rest.ready, SECONDS)
        refused = rest("GET", "/ports", identity.issue("admin"))
        assert (refused.status, refused.error["type"]) == (503, "Unavailable")
        rest.sent |= set(wrong.values())
        assert rest.logged() == []
