"""What the fields of a resource contain: JSON Schema (draft 2020-12), as OpenAPI 3.1 has it.

A listing declares its fields with it; the OpenAPI document of the REST API, and the reference in
the documentation, are made of these declarations.
"""

from collections.abc import Iterable, Mapping
from typing import Any

Shape = Mapping[str, Any]

TEXT: Shape = {"type": "string"}
INTEGER: Shape = {"type": "integer"}
NUMBER: Shape = {"type": "number"}
BOOLEAN: Shape = {"type": "boolean"}
UUID: Shape = {"type": "string", "format": "uuid"}
MOMENT: Shape = {"type": "string", "format": "date-time"}


def about(shape: Shape, meaning: str) -> Shape:
    """``shape`` with what it means, in one line for people."""
    return {**shape, "description": meaning}


def nullable(shape: Shape) -> Shape:
    """``shape``, or null."""
    if "enum" in shape:
        return {**shape, "type": [shape["type"], "null"], "enum": [*shape["enum"], None]}
    return {**shape, "type": [shape["type"], "null"]}


def one_of(values: Iterable[str]) -> Shape:
    """Text that is one of ``values``."""
    return {"type": "string", "enum": [str(value) for value in values]}


def many(shape: Shape) -> Shape:
    """A list of ``shape``."""
    return {"type": "array", "items": shape}


def record(fields: Mapping[str, Shape]) -> Shape:
    """An object with exactly these fields."""
    return {
        "type": "object",
        "properties": dict(fields),
        "required": list(fields),
        "additionalProperties": False,
    }


def numbers(names: Iterable[str]) -> Shape:
    """An object with a number for some of ``names``."""
    return {
        "type": "object",
        "properties": {str(name): {"type": "integer", "minimum": 0} for name in names},
        "additionalProperties": False,
    }
