"""An identity service on loopback: the part of Keystone's API that keystonemiddleware uses.

Identity API v3, "Password authentication", "Validate and show information for token"
(https://docs.openstack.org/api-ref/identity/v3/).
"""

import datetime
import json
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

USER, PASSWORD = "agent-flows", "the-service-password"
"""Who checks tokens: the service that the middleware stands in front of."""
_DEFAULT = {"id": "default", "name": "Default"}


class IdentityService:
    """Runs while the block around it does, and again after ``stop`` and ``start``."""

    def __init__(self) -> None:
        self._tokens: dict[str, dict[str, Any]] = {}
        self.validated: list[str] = []
        """The tokens that were asked about."""
        self._address = ("127.0.0.1", 0)
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._address[1]}/v3"

    @property
    def middleware(self) -> dict[str, str]:
        """The options of ``[keystone_authtoken]``."""
        return {
            "auth_type": "password",
            "auth_url": self.url,
            "www_authenticate_uri": self.url,
            "username": USER,
            "password": PASSWORD,
            "project_name": "service",
            "user_domain_id": "default",
            "project_domain_id": "default",
            "service_token_roles_required": "true",
        }

    def issue(
        self, *roles: str, project: str | None = "p", system: bool = False, seconds: float = 3600
    ) -> str:
        """A token that lives so long; of the whole system or in ``project``."""
        token = f"gAAAAA{secrets.token_urlsafe(24)}"
        expires = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
        scope: dict[str, Any] = {"system": {"all": True}} if system else {}
        if project and not system:
            scope = {"project": {"id": project, "name": project, "domain": _DEFAULT}}
        endpoints = [
            {"id": name, "interface": name, "region": "r", "region_id": "r", "url": self.url}
            for name in ("admin", "internal", "public")
        ]
        self._tokens[token] = {
            "methods": ["password"],
            "user": {"id": "u", "name": "u", "domain": _DEFAULT},
            "roles": [{"id": role, "name": role} for role in roles],
            "catalog": [{"type": "identity", "name": "keystone", "endpoints": endpoints}],
            "issued_at": "2026-01-01T00:00:00.000000Z",
            "expires_at": expires.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            **scope,
        }
        return token

    def revoke(self, token: str) -> None:
        del self._tokens[token]

    def authenticate(self, body: dict[str, Any]) -> str | None:
        """A token for the service's own user, None for others."""
        user = body["auth"]["identity"]["password"]["user"]
        known = (user["name"], user["password"]) == (USER, PASSWORD)
        return self.issue("service", project="service") if known else None

    def find(self, token: str) -> dict[str, Any] | None:
        return self._tokens.get(token)

    def start(self) -> None:
        service = self

        class Handler(_Handler):
            identity = service

        self._server = ThreadingHTTPServer(self._address, Handler)
        self._address = ("127.0.0.1", self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def stop(self) -> None:
        """Nobody listens any more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Handler(BaseHTTPRequestHandler):
    identity: IdentityService

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def do_GET(self) -> None:
        if not self.path.endswith("/auth/tokens"):
            links = [{"rel": "self", "href": f"{self.identity.url}/"}]
            version = {"id": "v3.14", "status": "stable", "links": links}
            self._answer(200, {"version": version})
        elif self.identity.find(self.headers.get("X-Auth-Token", "")) is None:
            self._refuse(401, "The request you have made requires authentication.")
        else:
            subject = self.headers.get("X-Subject-Token", "")
            self.identity.validated.append(subject)
            token = self.identity.find(subject)
            if token is None:
                self._refuse(404, "Could not find token.")
            else:
                self._answer(200, {"token": token})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        issued = self.identity.authenticate(body)
        if issued is None:
            self._refuse(401, "The request you have made requires authentication.")
        else:
            self._answer(201, {"token": self.identity.find(issued)}, {"X-Subject-Token": issued})

    def _refuse(self, status: int, message: str) -> None:
        self._answer(status, {"error": {"code": status, "message": message}})

    def _answer(
        self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None
    ) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)
