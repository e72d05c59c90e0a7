"""REST clients: what the commands ask of any API, and the client of our own server's."""

import abc
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, TypeVar
from urllib.parse import quote

from keystoneauth1 import exceptions
from keystoneauth1.adapter import Adapter
from keystoneauth1.plugin import BaseAuthPlugin
from keystoneauth1.session import Session

from agent_flows.cli.failure import CommandFailed, ExitCode

Resource = dict[str, Any]
T = TypeVar("T")

SECONDS = 30.0
_IDENTITY = ("id", "name")
_PAGE = 500
_NOT_FOUND = 404


class Client(abc.ABC):
    """Resources by REST, as our own server and Neutron have them.

    One request may take 30 seconds. Every method raises :class:`CommandFailed`,
    with ``ExitCode.NOT_FOUND`` for a resource that does not exist. An answer
    that reports an error has its message under ``_error_key``.
    """

    _error_key: ClassVar[str]
    shortens_tasks: ClassVar[bool] = True
    """Whether tasks are found by the beginning of an id."""

    def __init__(self, adapter: Adapter, url: str = "") -> None:
        self._adapter = adapter
        self._url = url

    def find(
        self, collection: str, filters: Mapping[str, object], limit: int | None = None
    ) -> list[Resource]:
        """The resources that match, at most ``limit``."""
        found: list[Resource] = []
        for page in self._pages(collection, filters, limit):
            found.extend(page)
            if limit is not None and len(found) >= limit:
                return found[:limit]
        return found

    def named(self, collection: str, name: str) -> list[Resource]:
        """The resources of this name, with their id and name."""
        return self.find(collection, {"name": name, "fields": _IDENTITY})

    @abc.abstractmethod
    def beginning(self, collection: str, prefix: str) -> list[Resource]:
        """The resources whose id begins with ``prefix``, with their id and name."""

    def tasks_of_flow(self, prefix: str) -> list[Resource]:
        """The tasks of the flows whose id begins with ``prefix``."""
        return self.find("tasks", {"flow_id_prefix": prefix})

    def show(self, collection: str, resource_id: str) -> Resource:
        answer = self._request("GET", path_of(collection, resource_id))
        return _content(answer, _one(collection), dict)

    def put(self, collection: str, resource_id: str, body: Mapping[str, object]) -> Resource:
        kind = _one(collection)
        answer = self._request("PUT", path_of(collection, resource_id), json={kind: dict(body)})
        return _content(answer, kind, dict)

    def apply(self, document: Mapping[str, object]) -> Resource:
        """Write all objects of the document or none; answers by kind what became of them."""
        return _content(self._request("POST", "/documents", json=document), "document", dict)

    @abc.abstractmethod
    def resync(self, port_id: str) -> None:
        """Request that the port's agent wires it again."""

    def agent_was_seen(self, host: str) -> bool | None:
        """Whether an agent ever reported as ``host``; None if the API does not show it."""
        return None

    def _pages(
        self, collection: str, filters: Mapping[str, object], limit: int | None
    ) -> Iterator[list[Resource]]:
        params: dict[str, object] = {**filters, "limit": min(limit or _PAGE, _PAGE)}
        key = collection.replace("-", "_")
        while True:
            answer = self._request("GET", "/" + collection, params=params)
            page = _content(answer, key, list)
            yield page
            if not any(link["rel"] == "next" for link in answer.get(f"{key}_links", ())):
                return
            params["marker"] = page[-1]["id"]

    def _request(self, method: str, path: str, **kwargs: Any) -> Any:
        call = f"{method} {self._url}{path}"
        try:
            answer = self._adapter.request(path, method, raise_exc=False, timeout=SECONDS, **kwargs)
        except exceptions.ConnectFailure as exc:
            raise CommandFailed(self._unreachable(exc)) from None
        except exceptions.ClientException as exc:
            raise CommandFailed(f"{call}: {exc}") from None
        try:
            body = answer.json() if answer.content else None
        except ValueError:
            body = None
        if answer.status_code < 400:
            return body
        error = body.get(self._error_key) if isinstance(body, dict) else None
        if not isinstance(error, dict) or "message" not in error:
            what = f"HTTP {answer.status_code} {answer.reason}"
            raise CommandFailed(f"{call}: {what}; is this the API of agent_flows?")
        code = ExitCode.NOT_FOUND if answer.status_code == _NOT_FOUND else ExitCode.FAILED
        field = error.get("field")
        raise CommandFailed(str(error["message"]), code, field if isinstance(field, str) else None)

    @abc.abstractmethod
    def _unreachable(self, exc: Exception) -> str:
        """What to tell the operator when there is no connection."""


class RestClient(Client):
    """The server's own API at ``url``, with the tokens of ``auth`` or none."""

    _error_key = "error"

    def __init__(
        self, url: str, auth: BaseAuthPlugin | None = None, verify: bool | str = True
    ) -> None:
        adapter = Adapter(
            # Its timeout is for the requests that authenticate.
            Session(auth=auth, verify=verify, timeout=SECONDS, user_agent="agent-flows"),
            # keystoneauth replaces %(project_id)s and the like in it.
            endpoint_override=url.replace("%", "%%"),
            # Also without a body: the server accepts no request that a page of a browser can send.
            additional_headers={"Content-Type": "application/json"},
        )
        super().__init__(adapter, url.rstrip("/"))

    def resync(self, port_id: str) -> None:
        self._request("POST", path_of("ports", port_id) + "/resync")

    def beginning(self, collection: str, prefix: str) -> list[Resource]:
        return self.find(collection, {"id_prefix": prefix, "fields": _IDENTITY})

    def delete(self, collection: str, resource_id: str) -> None:
        self._request("DELETE", path_of(collection, resource_id))

    def specs(self, port_id: str) -> list[Any]:
        """What the port's agent gets of it: the specs of the port and of the groups it needs."""
        answer = self._request("GET", path_of("ports", port_id) + "/specs")
        return _content(answer, "specs", list)

    def resync_host(self, host: str) -> None:
        """Request that the agent of ``host`` wires all its ports again."""
        self._request("POST", path_of("agents", host) + "/resync")

    def forget_agent(self, host: str) -> None:
        """Delete what the server knows of the agent of ``host``."""
        self.delete("agents", host)

    def agent_was_seen(self, host: str) -> bool | None:
        return bool(self.find("agents", {"host": host}))

    def _unreachable(self, exc: Exception) -> str:
        if isinstance(exc, exceptions.ConnectTimeout):
            return f"No answer from {self._url} within {SECONDS:.0f} seconds."
        return (
            f"Cannot connect to {self._url}. Is the server running (agent-flows-server, or "
            "agent-flows all-in-one)? Set another address with --url or AGENT_FLOWS_URL."
        )


def path_of(collection: str, resource_id: str) -> str:
    return f"/{collection}/{quote(resource_id, safe='')}"


def _one(collection: str) -> str:
    """The key of one resource in bodies: ``security-groups`` to ``security_group``."""
    return collection.removesuffix("s").replace("-", "_")


def _content(answer: Any, key: str, kind: type[T]) -> T:
    if isinstance(answer, dict) and isinstance(content := answer.get(key), kind):
        return content
    raise CommandFailed(f"The answer has no {key}: is this the API of agent_flows?")
