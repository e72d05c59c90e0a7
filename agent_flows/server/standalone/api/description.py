"""``GET /openapi.json``: what the API can do, for programs."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Protocol

import falcon

from agent_flows.server.standalone.api.operation import Answer, Operation, Operations


class Described(Protocol):
    """A resource of the API."""

    def policy(self, method: str) -> str: ...

    def operations(self) -> Operations: ...


class Description:
    """Describes ``resources``, by their paths; itself will be one of them."""

    def __init__(self, resources: Mapping[str, Described]) -> None:
        self._resources = resources

    def policy(self, method: str) -> str:
        return "read"

    def operations(self) -> Operations:
        answer = Answer("an OpenAPI 3.1 document", {"type": "object"})
        return {"GET": Operation("This document.", {200: answer})}

    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        response.media = self._document

    @cached_property
    def _document(self) -> Mapping[str, Any]:
        # Most servers are never asked for it.
        from agent_flows.server.standalone.api.openapi import document

        return document(self._resources)
