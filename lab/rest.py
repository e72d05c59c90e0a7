"""The server's REST API, asked from inside a namespace or from here."""

import contextlib
import http.client
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from lab.namespace import Namespace
from lab.process import wait_until

Body = dict[str, Any]
DEFAULT_PORT = 9797
_SINGULAR = {
    "networks": "network",
    "address-groups": "address_group",
    "security-groups": "security_group",
    "ports": "port",
    "tasks": "task",
}


class Refused(Exception):
    """The API answered with an error; ``body`` is its content."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(f"HTTP {status}: {body}")
        self.status = status
        self.body = body


class Api:
    """One kept-alive connection to the API; for one thread at a time.

    ``headers`` go with every request.
    """

    def __init__(
        self,
        namespace: Namespace | None = None,
        port: int = DEFAULT_PORT,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._namespace = namespace
        self._port = port
        self._headers = dict(headers or {})
        self._connection: http.client.HTTPConnection | None = None

    def request(self, method: str, path: str, body: object = None) -> Any:
        """The decoded answer. Raises :class:`Refused`, or OSError without an answer."""
        payload = None if body is None else json.dumps(body).encode()
        headers = {} if payload is None else {"Content-Type": "application/json"}
        try:
            answer = self._send(method, path, payload, headers)
        except (http.client.HTTPException, ConnectionError):
            # A kept-alive connection may be closed by now.
            self.close()
            answer = self._send(method, path, payload, headers)
        text = answer.read()
        try:
            content = json.loads(text) if text else None
        except ValueError:
            content = text.decode(errors="replace")
        if answer.status >= 400:
            raise Refused(answer.status, content)
        return content

    def _send(
        self, method: str, path: str, payload: bytes | None, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        if self._connection is None:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)
            # It would connect again outside of the namespace, to whatever listens there.
            connection.auto_open = 0
            inside = self._namespace.entered() if self._namespace else contextlib.nullcontext()
            with inside:
                connection.connect()
            self._connection = connection
        self._connection.request(method, path, payload, {**self._headers, **headers})
        return self._connection.getresponse()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def answers(self) -> bool:
        """Whether the API is there and healthy."""
        try:
            self.request("GET", "/healthz")
        except (OSError, http.client.HTTPException, Refused):
            self.close()
            return False
        return True

    def put(self, collection: str, identity: str, body: Mapping[str, Any]) -> Body:
        kind = _SINGULAR[collection]
        answer = self.request("PUT", f"/{collection}/{identity}", {kind: dict(body)})
        return dict(answer[kind])

    def delete(self, collection: str, identity: str) -> None:
        self.request("DELETE", f"/{collection}/{identity}")

    def find(self, collection: str, **filters: object) -> list[Body]:
        """All of them: without a ``limit`` page after page."""
        return self.pages(f"/{collection}", collection.replace("-", "_"), filters)

    def pages(self, path: str, key: str, filters: Mapping[str, object]) -> list[Body]:
        """As :meth:`find`, of any API with such pages."""
        found: list[Body] = []
        more = True
        while more:
            after = {"marker": found[-1]["id"]} if found else {}
            query = urlencode({**filters, **after}, doseq=True)
            answer = self.request("GET", f"{path}?{query}" if query else path)
            found += answer[key]
            links = [] if "limit" in filters else answer.get(f"{key}_links", [])
            more = any(link["rel"] == "next" for link in links)
        return found

    def port(self, identity: str) -> Body:
        return dict(self.request("GET", f"/ports/{identity}")["port"])

    def tasks(self, port_id: str, state: str | None = None) -> list[Body]:
        """The port's tasks, oldest first; only those in ``state`` if one is given."""
        filters = {"task_state": state} if state else {}
        found = self.find("tasks", resource_id=port_id, limit=1000, **filters)
        return sorted(found, key=lambda task: (task["started_at"] or "", task["attempt"]))

    def wait_port(self, identity: str, seconds: float = 20, **expected: object) -> Body:
        """The port once its fields are as ``expected``; TimeoutError names the values they have."""
        last: Body = {}

        def as_expected() -> bool:
            last.update(self.port(identity))
            return all(last.get(name) == value for name, value in expected.items())

        try:
            wait_until(as_expected, seconds, f"port {identity} is {expected}")
        except TimeoutError as late:
            seen = {name: last.get(name) for name in expected}
            failed = [task["error"] for task in self.tasks(identity, "FAILED")][-1:]
            raise TimeoutError(f"{late}; it is {seen}, last failure: {failed}") from None
        return last
