"""The documents that ``agent-flows apply`` reads: YAML or JSON, checked before anything is sent."""

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from agent_flows.cli.failure import CommandFailed, ExitCode

# In the order of references: a section refers only to those before it, or to itself.
SECTIONS = ("networks", "address_groups", "security_groups", "ports")
_GROUPS, _RULES = "security_groups", "security_group_rules"
_IN_MEMORY = 4 * 1024 * 1024


@dataclass(frozen=True)
class Resource:
    """One object of a document; ``size`` is what it takes in a request, in bytes."""

    section: str
    body: Mapping[str, Any]
    size: int

    @property
    def id(self) -> str:
        return str(self.body["id"])

    @property
    def remote_groups(self) -> frozenset[str]:
        """The security groups that its rules refer to."""
        rules = self.body.get(_RULES)
        found = (_remote_group(rule) for rule in rules) if isinstance(rules, list) else ()
        return frozenset(group for group in found if group)


def _remote_group(rule: object) -> str | None:
    value = rule.get("remote_group_id") if isinstance(rule, Mapping) else None
    return value if isinstance(value, str) else None


@contextmanager
def opened(file: str) -> Iterator[IO[str]]:
    """The text of ``file``, which may be read twice; ``-`` is standard input."""
    try:
        with _open(file) as text:
            yield text
    except (OSError, UnicodeDecodeError) as exc:
        raise CommandFailed(f"Cannot read {file}: {exc}", ExitCode.USAGE) from None


def _open(file: str) -> IO[str]:
    if file != "-":
        return Path(file).open(encoding="utf-8")
    copy = tempfile.SpooledTemporaryFile(_IN_MEMORY, mode="w+", encoding="utf-8")  # noqa: SIM115
    while some := sys.stdin.read(_IN_MEMORY):
        copy.write(some)
    copy.seek(0)
    return copy


def read(text: IO[str], name: str) -> Iterator[Sequence[Resource]]:
    """The objects of each document, in the order of references; one document at a time.

    Raises :class:`CommandFailed` that names the document and the part at fault.
    """
    import yaml

    # JSON is YAML. The loader in C, where PyYAML has it, takes a tenth of the time.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        for number, document in enumerate(yaml.load_all(text, loader), 1):
            if document is None and number > 1:
                continue  # after a last ---
            try:
                resources = list(_resources(document))
            except CommandFailed as exc:
                where = "" if number == 1 else f"document {number}: "
                raise CommandFailed(f"{where}{exc}", exc.exit_code) from None
            yield in_order(resources)
    except yaml.YAMLError as exc:
        raise CommandFailed(f"{name} is not YAML: {exc}", ExitCode.USAGE) from None


def _resources(document: object) -> Iterator[Resource]:
    if not isinstance(document, Mapping):
        raise CommandFailed("The document must be an object.", ExitCode.USAGE)
    unknown = [str(key) for key in document if key not in SECTIONS]
    if unknown:
        known = ", ".join(SECTIONS)
        raise CommandFailed(f"{unknown[0]}: unknown key; the keys are {known}.", ExitCode.USAGE)
    for section in SECTIONS:
        items = document.get(section)
        if items is None:
            continue
        if not isinstance(items, list):
            raise CommandFailed(f"{section}: must be a list.", ExitCode.USAGE)
        ids: set[str] = set()
        for place, item in enumerate(items):
            resource = _resource(section, f"{section}.{place}", item)
            if resource.id in ids:
                message = f"{section}.{place}.id: {resource.id} is there twice."
                raise CommandFailed(message, ExitCode.USAGE)
            ids.add(resource.id)
            yield resource


def _resource(section: str, path: str, item: object) -> Resource:
    if not isinstance(item, Mapping) or not isinstance(item.get("id"), str):
        raise CommandFailed(f"{path}.id: every object needs a UUID.", ExitCode.USAGE)
    body = {str(key): value for key, value in item.items()}
    try:
        size = len(json.dumps(body, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as exc:
        # YAML has dates, numbers and references that JSON has not.
        raise CommandFailed(f"{path}: {exc}", ExitCode.USAGE) from None
    return Resource(section, body, size)


def in_order(resources: Sequence[Resource]) -> list[Resource]:
    """The same, each security group after those that its rules refer to; in a circle of
    references the first comes first."""
    groups = {each.id: each for each in resources if each.section == _GROUPS}
    left = {group_id: group.remote_groups - {group_id} for group_id, group in groups.items()}
    ordered: list[str] = []
    while left:
        ready = [group_id for group_id, named in left.items() if left.keys().isdisjoint(named)]
        for group_id in ready or [next(iter(left))]:
            del left[group_id]
            ordered.append(group_id)
    place = {group_id: number for number, group_id in enumerate(ordered)}
    # The sort keeps the order of all others.
    return sorted(
        resources,
        key=lambda each: (
            SECTIONS.index(each.section),
            place[each.id] if each.section == _GROUPS else 0,
        ),
    )
