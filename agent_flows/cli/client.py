"""A REST client for the server's API, and what commands need of any client."""

import abc
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Protocol
from urllib.parse import quote

from keystoneauth1 import exceptions, session
from keystoneauth1.plugin import BaseAuthPlugin

from agent_flows.cli.failure import CommandFailed, ExitCode

Resource = dict[str, Any]

# Names of resources in paths and as keys of an answer: plural to singular.
SINGULAR = {
    "networks": "network",
    "address-groups": "address_group",
    "security-groups": "security_group",
    "ports": "port",
    "tasks": "task",
    "agents": "agent",
    "agent-flows-agents": "agent_flows_agent",
}
_PAGE = 500
_SECONDS = 30.0
_NOT_FOUND = 404


class Api(Protocol):
    """What the commands ask of a client; another service that serves the same resources can too.

    Every method raises :class:`CommandFailed`, with ``ExitCode.NOT_FOUND`` for
    a resource that is not there.
    """

    def find(
        self, collection: str, filters: Mapping[str, object], limit: int | None = None
    ) -> list[Resource]:
        """The resources that match; of each page at most what the server gives."""
        ...

    def show(self, collection: str, resource_id: str) -> Resource: ...

    def put(self, collection: str, resource_id: str, body: Mapping[str, object]) -> Resource: ...

    def resync(self, port_id: str) -> None: ...

    def agent_was_seen(self, host: str) -> bool | None:
        """Whether an agent ever reported as ``host``; None if the service does not tell."""
        ...


class Client(abc.ABC):
    """Resources by REST, as our own server and Neutron have them.

    An answer that says what was wrong has it under ``_error_key``; ``_url`` is
    what the paths of requests stand behind.
    """

    _error_key: ClassVar[str]
    _url: str

    def find(
        self, collection: str, filters: Mapping[str, object], limit: int | None = None
    ) -> list[Resource]:
        found: list[Resource] = []
        for page in self._pages(collection, filters, limit):
            found.extend(page)
            if limit is not None and len(found) >= limit:
                return found[:limit]
        return found

    def show(self, collection: str, resource_id: str) -> Resource:
        answer = self._request("GET", path_of(collection, resource_id))
        return _resource(answer, SINGULAR[collection])

    def put(self, collection: str, resource_id: str, body: Mapping[str, object]) -> Resource:
        kind = SINGULAR[collection]
        answer = self._request("PUT", path_of(collection, resource_id), json={kind: dict(body)})
        return _resource(answer, kind)

    @abc.abstractmethod
    def resync(self, port_id: str) -> None:
        """Have the port's agent wire it anew."""

    def agent_was_seen(self, host: str) -> bool | None:
        return None

    def _pages(
        self, collection: str, filters: Mapping[str, object], limit: int | None
    ) -> Iterator[list[Resource]]:
        params: dict[str, object] = {**filters, "limit": min(limit or _PAGE, _PAGE)}
        while True:
            answer = self._request("GET", "/" + collection, params=params)
            key = collection.replace("-", "_")
            page = _resources(answer, key)
            yield page
            if not any(link["rel"] == "next" for link in answer.get(f"{key}_links", ())):
                return
            params["marker"] = page[-1]["id"]

    def _request(self, method: str, path: str, **kwargs: Any) -> Any:
        try:
            answer = self._send(method, path, **kwargs)
        except exceptions.ConnectFailure as exc:
            raise CommandFailed(self._unreachable(exc)) from None
        except exceptions.ClientException as exc:
            raise CommandFailed(f"{method} {self._url}{path}: {exc}") from None
        body = _json(answer)
        if answer.status_code >= 400:
            error = body.get(self._error_key) if isinstance(body, dict) else None
            if not isinstance(error, dict) or "message" not in error:
                what = f"HTTP {answer.status_code} {answer.reason}"
                raise CommandFailed(
                    f"{method} {self._url}{path}: {what}; is this the API of agent_flows?"
                )
            code = ExitCode.NOT_FOUND if answer.status_code == _NOT_FOUND else ExitCode.FAILED
            raise CommandFailed(str(error["message"]), code)
        return body

    @abc.abstractmethod
    def _send(self, method: str, path: str, **kwargs: Any) -> Any:
        """One request; its answer whatever its status. Raises keystoneauth's exceptions."""

    @abc.abstractmethod
    def _unreachable(self, exc: Exception) -> str:
        """What to tell who waits when there is no connection."""


class RestClient(Client):
    """The server's own API at ``url``, with the tokens of ``auth`` or none.

    One request may take 30 seconds.
    """

    _error_key = "error"

    def __init__(
        self, url: str, auth: BaseAuthPlugin | None = None, verify: bool | str = True
    ) -> None:
        self._url = url.rstrip("/")
        self._session = session.Session(
            auth=auth,
            verify=verify,
            timeout=_SECONDS,
            user_agent="agent-flows",
        )

    def resync(self, port_id: str) -> None:
        self._request("POST", path_of("ports", port_id) + "/resync")

    def resync_host(self, host: str) -> None:
        """Have the agent of ``host`` wire all its ports anew."""
        self._request("POST", path_of("agents", host) + "/resync")

    def forget_agent(self, host: str) -> None:
        """Delete what is known of the agent of ``host``."""
        self._request("DELETE", path_of("agents", host))

    def agent_was_seen(self, host: str) -> bool | None:
        return bool(self.find("agents", {"host": host}))

    def _send(self, method: str, path: str, **kwargs: Any) -> Any:
        # Of a request without a body, too: the server lets no page of a browser send one.
        headers = {} if method == "GET" else {"Content-Type": "application/json"}
        return self._session.request(
            self._url + path, method, raise_exc=False, headers=headers, **kwargs
        )

    def _unreachable(self, exc: Exception) -> str:
        if isinstance(exc, exceptions.ConnectTimeout):
            return f"No answer from {self._url} within {_SECONDS:.0f} seconds."
        return (
            f"Cannot connect to {self._url}. Is the server running (agent-flows-server, or "
            "agent-flows all-in-one)? Another address is given with --url or AGENT_FLOWS_URL."
        )


def path_of(collection: str, resource_id: str) -> str:
    return f"/{collection}/{quote(resource_id, safe='')}"


def _json(answer: Any) -> Any:
    try:
        return answer.json() if answer.content else None
    except ValueError:
        return None


def _resource(answer: Any, key: str) -> Resource:
    if isinstance(answer, dict) and isinstance(answer.get(key), dict):
        resource: Resource = answer[key]
        return resource
    raise _not_ours(key)


def _resources(answer: Any, key: str) -> list[Resource]:
    if isinstance(answer, dict) and isinstance(answer.get(key), list):
        resources: list[Resource] = answer[key]
        return resources
    raise _not_ours(key)


def _not_ours(key: str) -> CommandFailed:
    return CommandFailed(f"The answer has no {key}: is this the API of agent_flows?")
