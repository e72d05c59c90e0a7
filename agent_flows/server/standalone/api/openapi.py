"""The OpenAPI 3.1 document of the REST API, made of what its resources declare."""

import importlib.metadata
import re
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import pydantic

from agent_flows.server.core.shape import TEXT, Shape, nullable, record
from agent_flows.server.standalone.api.operation import (
    ANY,
    JSON,
    PLACE,
    REFUSALS,
    Answer,
    Operation,
    Operations,
    shared,
)

ERROR: Shape = record({"error": record({"type": TEXT, "message": TEXT, "field": nullable(TEXT)})})
"""The body of every refusal."""

_METHODS = ("GET", "POST", "PUT", "DELETE")
_ID = re.compile(r"\{(\w+)\}")


class Resource(Protocol):
    """A falcon resource that declares its operations."""

    def operations(self) -> Operations: ...


def document(resources: Mapping[str, Resource]) -> Mapping[str, Any]:
    """The document about ``resources``, by their paths.

    Raises ValueError if a resource answers a method that it does not declare, or declares one
    that it does not answer.
    """
    shapes: dict[str, Any] = {}
    paths = {path: _path(path, resource, shapes) for path, resource in resources.items()}
    _link(paths, resources)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "agent_flows",
            "version": importlib.metadata.version("agent_flows"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{}, {"token": []}],
        "paths": paths,
        "components": {
            "schemas": {"error": ERROR, **shapes},
            "responses": {str(each.status): _refusal(each.meaning) for each in REFUSALS},
            "securitySchemes": {
                "token": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "X-Auth-Token",
                    "description": "of Keystone; only with auth_strategy = keystone",
                }
            },
        },
    }


def body_of(kind: type[Any]) -> Shape:
    """The shape of what a request has of ``kind``; its id may be in the path instead."""
    shape = pydantic.TypeAdapter(kind).json_schema(ref_template=PLACE)
    required = [name for name in shape["required"] if name != "id"]
    return shared(kind.__name__, {**shape, "required": required})


def _path(path: str, resource: Resource, shapes: dict[str, Any]) -> dict[str, Any]:
    declared = resource.operations()
    answered = {method for method in _METHODS if hasattr(resource, f"on_{method.lower()}")}
    if answered != declared.keys():
        raise ValueError(f"{path} answers {sorted(answered)} and declares {sorted(declared)}")
    return {
        method.lower(): _operation(path, method, operation, shapes)
        for method, operation in declared.items()
    }


def _link(paths: Mapping[str, Any], resources: Mapping[str, Resource]) -> None:
    """Lead from each list to what can be done with a resource of it."""
    for path, resource in resources.items():
        for method, operation in resource.operations().items():
            for status, answer in operation.answers.items():
                if answer.first is None:
                    continue
                paths[path][method.lower()]["responses"][str(status)]["links"] = {
                    made["operationId"]: {
                        "operationId": made["operationId"],
                        "parameters": {"resource_id": f"$response.body#{answer.first}"},
                    }
                    for place, operations in paths.items()
                    if place.startswith(f"{path}/{{resource_id}}")
                    for made in operations.values()
                }


def _operation(
    path: str, method: str, operation: Operation, shapes: dict[str, Any]
) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": f"{method.lower()}-{'-'.join(re.findall(r'[a-z]+', path))}",
        "summary": operation.summary,
        "parameters": [
            *(
                {"name": name, "in": "path", "required": True, "schema": operation.path_shape}
                for name in _ID.findall(path)
            ),
            *operation.parameters,
        ],
        "responses": {
            **{
                str(status): _answer(answer, shapes) for status, answer in operation.answers.items()
            },
            **_refusals({*operation.refusals, *ANY} - operation.answers.keys()),
        },
    }
    if operation.body is not None:
        shape = _hoisted(operation.body, shapes)
        made["requestBody"] = {"required": True, "content": {JSON: {"schema": shape}}}
    return made


def _answer(answer: Answer, shapes: dict[str, Any]) -> dict[str, Any]:
    if answer.shape is None:
        return {"description": answer.meaning}
    return {
        "description": answer.meaning,
        "content": {answer.media_type: {"schema": _hoisted(answer.shape, shapes)}},
    }


def _refusals(statuses: Iterable[int]) -> dict[str, Any]:
    return {str(each): {"$ref": f"#/components/responses/{each}"} for each in sorted(statuses)}


def _refusal(meaning: str) -> dict[str, Any]:
    shape = {"$ref": "#/components/schemas/error"}
    return {"description": meaning, "content": {JSON: {"schema": shape}}}


def _hoisted(shape: Any, shapes: dict[str, Any]) -> Any:
    """``shape`` with every ``$defs`` in it moved to ``shapes``."""
    if isinstance(shape, Mapping):
        for name, definition in shape.get("$defs", {}).items():
            shapes[name] = _hoisted(definition, shapes)
        return {key: _hoisted(value, shapes) for key, value in shape.items() if key != "$defs"}
    if isinstance(shape, list):
        return [_hoisted(each, shapes) for each in shape]
    return shape
