"""Tokens are checked by keystone, here a small one of our own that answers as its API does."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import falcon.testing
import pytest

from agent_flows import conf as options
from agent_flows.server.standalone.api.app import application
from lab.server_parts import Server, configuration

ROLES = {"t-admin": "admin", "t-reader": "reader"}


class Keystone(BaseHTTPRequestHandler):
    """Issues one token to the service and knows the tokens of :data:`ROLES`."""

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def _answer(self, status: int, body: dict[str, Any], issued: str = "") -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        if issued:
            self.send_header("X-Subject-Token", issued)
        self.end_headers()
        self.wfile.write(raw)

    def _token(self, role: str) -> dict[str, Any]:
        here = f"http://127.0.0.1:{self.server.server_address[1]}/v3"
        endpoints = [
            {"id": name, "interface": name, "region": "r", "region_id": "r", "url": here}
            for name in ("admin", "internal", "public")
        ]
        return {
            "token": {
                "methods": ["password"],
                "user": {"id": "u", "name": "u", "domain": {"id": "default", "name": "Default"}},
                "project": {"id": "p", "name": "p", "domain": {"id": "default", "name": "Default"}},
                "roles": [{"id": role, "name": role}],
                "catalog": [{"type": "identity", "name": "keystone", "endpoints": endpoints}],
                "issued_at": "2026-01-01T00:00:00.000000Z",
                "expires_at": "2099-01-01T00:00:00.000000Z",
            }
        }

    def do_GET(self) -> None:
        if self.path.rstrip("/").endswith("/auth/tokens"):
            role = ROLES.get(self.headers.get("X-Subject-Token", ""))
            if role is None:
                self._answer(404, {"error": {"code": 404, "message": "no such token"}})
            else:
                self._answer(200, self._token(role))
            return
        here = f"http://127.0.0.1:{self.server.server_address[1]}/v3/"
        version = {"id": "v3.14", "status": "stable", "links": [{"rel": "self", "href": here}]}
        self._answer(200, {"version": version})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(201, self._token("service"), issued="t-service")


@pytest.fixture
def keystone() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Keystone)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v3"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def rest(server: Server, keystone: str, tmp_path: Any) -> falcon.testing.TestClient:
    """The server's API, authenticated, as its configuration file would have it."""
    made = tmp_path / "keystone.conf"
    made.write_text(
        "[keystone_authtoken]\nauth_type = password\nusername = agent-flows\n"
        "password = hidden\nproject_name = service\nuser_domain_id = default\n"
        f"project_domain_id = default\nauth_url = {keystone}\nwww_authenticate_uri = {keystone}\n"
    )
    conf = configuration("sqlite://")
    conf(["--config-file", str(made)])
    conf.set_override("auth_strategy", "keystone", options.API)
    conf.set_override("bind_host", "0.0.0.0", options.API)
    app = application(conf, server.database, server.caster, server.metrics, {})

    def as_function(environ: dict[str, Any], start_response: Any) -> Any:
        return app(environ, start_response)

    return falcon.testing.TestClient(as_function)


NETWORK = "/networks/00000000-0000-0000-0000-000000000001"
BODY = {"network": {"network_type": "local"}}


def put(rest: falcon.testing.TestClient, **headers: str) -> int:
    return int(rest.simulate_put(NETWORK, json=BODY, headers=headers).status_code)


def test_admin_writes_reader_reads_and_others_are_refused(
    rest: falcon.testing.TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    assert put(rest) == 401
    assert put(rest, **{"X-Auth-Token": "t-forged"}) == 401
    assert put(rest, **{"X-Auth-Token": "t-reader"}) == 403
    assert rest.simulate_get(NETWORK, headers={"X-Auth-Token": "t-reader"}).status_code == 404
    assert put(rest, **{"X-Auth-Token": "t-admin"}) == 201
    answer = rest.simulate_get(NETWORK, headers={"X-Auth-Token": "t-reader"})
    assert answer.json["network"]["network_type"] == "local"
    assert rest.simulate_get("/metrics").status_code == 401
    assert rest.simulate_get("/healthz").status_code == 200
    for secret in ("hidden", "t-admin", "t-reader", "t-service"):
        assert secret not in caplog.text


def test_answer_without_a_token_names_what_is_missing(rest: falcon.testing.TestClient) -> None:
    answer = rest.simulate_get("/ports")
    assert answer.json["error"]["type"] == "Unauthorized"
    assert "X-Auth-Token" in answer.json["error"]["message"]
    assert "Keystone" in answer.headers["WWW-Authenticate"]


def test_headers_of_the_client_give_no_role(rest: falcon.testing.TestClient) -> None:
    assert put(rest, **{"X-Identity-Status": "Confirmed", "X-Roles": "admin"}) == 401


@pytest.mark.parametrize("path", ["/", "/page/ports", "/page/hosts", "/page/style.css"])
def test_status_page_demands_what_reading_the_api_demands(
    rest: falcon.testing.TestClient, path: str
) -> None:
    refused = rest.simulate_get(path)
    assert refused.status_code == 401
    assert "a valid token is needed" in refused.text
    assert rest.simulate_get(path, headers={"X-Auth-Token": "t-reader"}).status_code == 200
