"""Specs and reports as JSON objects: their form on the bus and in the outbox.

A newer minor version only adds fields, which are ignored here.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import pydantic

from agent_flows.report import FlowReport
from agent_flows.spec import (
    AddressGroupSpec,
    DesiredState,
    PortSpec,
    Refused,
    SecurityGroupSpec,
    Spec,
)
from agent_flows.validation import Invalid, Revision, Uuid, parse, shown

_MAJOR, _MINOR = 1, 0
KINDS: Mapping[str, type[Spec]] = {
    "port": PortSpec,
    "security_group": SecurityGroupSpec,
    "address_group": AddressGroupSpec,
}
"""What ``kind`` may be of a spec."""
_KIND_OF = {cls: kind for kind, cls in KINDS.items()}
_ADAPTERS: Mapping[type, pydantic.TypeAdapter[Any]] = {
    cls: pydantic.TypeAdapter(cls) for cls in (*_KIND_OF, FlowReport)
}
_ID: pydantic.TypeAdapter[str] = pydantic.TypeAdapter(Uuid)
_REVISION: pydantic.TypeAdapter[int] = pydantic.TypeAdapter(Revision)
_SHOWN = 1024

T = TypeVar("T", bound=Spec | FlowReport)


def to_wire(value: Spec | FlowReport) -> dict[str, Any]:
    """``value`` as JSON-ready data with its version and, for a spec, its kind."""
    fields: dict[str, Any] = _ADAPTERS[type(value)].dump_python(value, mode="json")
    fields["version"] = f"{_MAJOR}.{_MINOR}"
    if not isinstance(value, FlowReport):
        fields["kind"] = _KIND_OF[type(value)]
    return fields


def report_from_wire(raw: object) -> FlowReport:
    """Read one report; raises :class:`Invalid`."""
    report = _read(FlowReport, _fields(raw))
    if report.sequence < 1:
        raise Invalid("sequence", report.sequence, "must be at least 1")
    return report


def spec_from_wire(raw: object) -> Spec:
    """Read one spec; raises :class:`Invalid`."""
    fields = _fields(raw)
    kind = fields.pop("kind", None)
    if not isinstance(kind, str) or kind not in KINDS:
        raise Invalid("kind", kind, f"must be one of {', '.join(KINDS)}")
    return _read(KINDS[kind], fields)


def state_from_wire(raws: object) -> DesiredState:
    """Read a list of specs; an invalid one is refused by its id, the others are kept.

    Raises :class:`Invalid` for an invalid spec without an id, and if one id comes twice.
    """
    if not isinstance(raws, Sequence) or isinstance(raws, str | bytes):
        raise Invalid("specs", raws, "must be a list")
    specs: list[Spec] = []
    refused: dict[str, Refused] = {}
    for raw in raws:
        try:
            specs.append(spec_from_wire(raw))
        except Invalid as exc:
            refused[id_of(raw, exc)] = refusal(raw, exc)
    return dataclasses.replace(DesiredState.of(specs), refused=refused)


def _fields(raw: object) -> dict[str, Any]:
    if not isinstance(raw, Mapping):
        raise Invalid("", raw, "must be an object")
    return dict(raw)


def _read(cls: type[T], fields: dict[str, Any]) -> T:
    if _is_newer(fields.pop("version", None)):
        known = {field.name for field in dataclasses.fields(cls)}
        fields = {name: value for name, value in fields.items() if name in known}
    value: T = parse(_ADAPTERS[cls], fields)
    return value


def _is_newer(version: object) -> bool:
    """Whether a peer's ``"major.minor"`` may add fields to ours; raises :class:`Invalid`."""
    parts = version.split(".") if isinstance(version, str) else []
    if len(parts) != 2 or not all(p.isascii() and p.isdigit() and len(p) < 6 for p in parts):
        raise Invalid("version", version, "must be a version as 1.0")
    major, minor = int(parts[0]), int(parts[1])
    if major != _MAJOR:
        raise Invalid("version", version, f"major version must be {_MAJOR}")
    return minor > _MINOR


def id_of(raw: object, exc: Invalid) -> str:
    if not isinstance(raw, Mapping):
        raise exc
    try:
        return parse(_ID, raw.get("id"))
    except Invalid:
        raise exc from None


def refusal(raw: object, exc: Invalid) -> Refused:
    fields = raw if isinstance(raw, Mapping) else {}
    try:
        revision = parse(_REVISION, fields.get("revision"))
    except Invalid:
        revision = 0
    name, _, rest = exc.field.partition(".")
    part, index = fields.get(name), rest.partition(".")[0]
    if isinstance(part, list) and index.isdigit() and int(index) < len(part):
        part = part[int(index)]
    return Refused(str(exc), revision, shown(part, _SHOWN))
