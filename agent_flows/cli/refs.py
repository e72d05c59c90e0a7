"""What people type for a resource and read of it: a name, or the beginning of an id."""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from agent_flows.cli.failure import CommandFailed, ExitCode

if TYPE_CHECKING:
    from agent_flows.cli.client import Client

KINDS: Mapping[str, str] = {
    "ports": "port",
    "networks": "network",
    "security-groups": "security group",
    "address-groups": "address group",
}
"""What has a name: the collection, and one of it in words."""

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_BEGINNING = re.compile(r"[0-9a-f][0-9a-f-]{2,35}")
_TASK = re.compile(r"([0-9a-f-]{3,36})\.(\d{1,2})")
_SHORTEST = 8
_SHOWN = 5
# Ids in one request: a URL has its limits.
_TOGETHER = 50


def resolve(api: "Client", collection: str, typed: str) -> str:
    """The id of what was typed: an id, a name, or the beginning of an id, in this order.

    Raises :class:`CommandFailed` if that is nothing, or several resources.
    """
    if _UUID.fullmatch(typed):
        return typed
    kind = KINDS[collection]
    found = api.named(collection, typed)
    how = f"have the name {typed}"
    if not found and _BEGINNING.fullmatch(typed):
        found = api.beginning(collection, typed)
        how = f"have an id that begins with {typed}"
    if not found:
        raise CommandFailed(
            f"There is no {kind} with the name {typed}, nor one whose id begins so.",
            ExitCode.NOT_FOUND,
        )
    return _only(sorted(each["id"] for each in found), f"{kind}s {how}")


def resolve_any(api: "Client", typed: str) -> str:
    """The id of a port or, if there is no such port, of a security group."""
    try:
        return resolve(api, "ports", typed)
    except CommandFailed as exc:
        if exc.exit_code is not ExitCode.NOT_FOUND:
            raise
    try:
        return resolve(api, "security-groups", typed)
    except CommandFailed as exc:
        if exc.exit_code is not ExitCode.NOT_FOUND:
            raise
    raise CommandFailed(
        f"There is no port or security group with the name {typed}, nor one whose id begins so.",
        ExitCode.NOT_FOUND,
    )


def resolve_task(api: "Client", typed: str) -> str:
    """The id of a task: as it is, or as :func:`short_task` shows it."""
    short = _TASK.fullmatch(typed)
    if short is None or not api.shortens_tasks:
        return typed
    found = api.tasks_of_flow(short[1])
    ids = [each["id"] for each in found if each["order"] == int(short[2])]
    if not ids:
        raise CommandFailed(f"There is no task {typed}.", ExitCode.NOT_FOUND)
    return _only(ids, f"tasks are {typed}")


def _only(ids: list[str], how: str) -> str:
    if len(ids) == 1:
        return ids[0]
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    raise CommandFailed(
        f"{len(ids)} {how}: {', '.join(ids[:_SHOWN])}{more}. Give an id.", ExitCode.USAGE
    )


def shortened(ids: Iterable[str]) -> dict[str, str]:
    """Each id to a beginning of it that no other of these ids has."""
    unique = sorted(set(ids))
    short = {}
    for place, each in enumerate(unique):
        beside = unique[max(place - 1, 0) : place] + unique[place + 1 : place + 2]
        same = max((_common(each, other) for other in beside), default=0)
        short[each] = each[: max(_SHORTEST, same + 1)]
    return short


def _common(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def short_task(flow: str, order: int) -> str:
    """``flow`` is the beginning of the id of the task's flow. The dot shows that it is not a whole
    id, which has a dash there."""
    return f"{flow}.{order}"


def names(api: "Client", collection: str, ids: Collection[str]) -> dict[str, str]:
    """The names of those that have one, by id."""
    found: dict[str, str] = {}
    wanted = sorted(set(ids))
    for start in range(0, len(wanted), _TOGETHER):
        some = wanted[start : start + _TOGETHER]
        for each in api.find(collection, {"id": some, "fields": ("id", "name")}):
            if each.get("name"):
                found[each["id"]] = each["name"]
    return found
