"""Many objects in one request, written in one transaction: all of them, or none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import falcon

from agent_flows.server.core import clock
from agent_flows.server.core.casts import Casts
from agent_flows.server.core.database import retried
from agent_flows.server.core.listing import View, some
from agent_flows.server.core.shape import UUID, many, record
from agent_flows.server.standalone import bodies
from agent_flows.server.standalone.api import document
from agent_flows.server.standalone.api.document import TooLarge
from agent_flows.server.standalone.api.kinds import Kind, Writing
from agent_flows.server.standalone.api.operation import (
    BODY,
    Answer,
    Operation,
    Operations,
    having,
    shown,
    under,
)
from agent_flows.server.standalone.api.resources import Api, Collection
from agent_flows.server.standalone.desired import Placed, Written
from agent_flows.validation import Invalid


@dataclass(frozen=True)
class _Section:
    """The objects of one kind."""

    kind: Kind
    writing: Writing
    placed: Placed[Any]


class WritableCollection(Collection):
    """``POST /<path>`` creates or replaces a list of objects, each with its id.

    201 if any of them is new, else 200; in both cases with all of them, in the order of the
    request.
    """

    def __init__(self, api: Api, kind: Kind, writing: Writing) -> None:
        super().__init__(api, kind)
        self._writing = writing

    def policy(self, method: str) -> str:
        return "read" if method in ("GET", "HEAD") else "write"

    def operations(self) -> Operations:
        listing = self._kind.listing
        plural, name = listing.plural, listing.plural.replace("_", " ")
        answer = under(plural, many(shown(self._kind.singular, listing, listing.unasked)))
        return {
            **super().operations(),
            "POST": Operation(
                f"Create or replace {name}, all of them or none.",
                {200: Answer("replaced", answer), 201: Answer("some are new", answer)},
                [*BODY, 409],
                body=under(plural, many(having(self._writing.shape, ["id"]))),
            ),
        }

    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        plural = self._kind.listing.plural
        raw = document.read(request, plural, self._api.max_body_bytes)
        items = _items(plural, raw)
        _check_number(len(items), self._api.max_objects)
        section = _Section(self._kind, self._writing, _placed(plural, self._writing.body, items))
        written, views = self._post(section)
        self._api.caster.cast(written.casts)
        response.status = falcon.HTTP_201 if written.created else falcon.HTTP_200
        response.media = {plural: views}

    @retried
    def _post(self, section: _Section) -> tuple[Written, list[View]]:
        with self._api.database.writer() as session:
            written = section.writing.put(session, section.placed, clock.now())
            session.expire_all()
            ids = [body.id for _, body in section.placed]
            return written, some(session, self._kind.listing, ids)


class Documents:
    """``POST /documents`` creates or replaces objects of several kinds, which may refer to each
    other.

    200 with the ids of what is new, what changed and what was so already, by kind.
    """

    def __init__(self, api: Api, kinds: Sequence[Kind]) -> None:
        self._api = api
        self._kinds = kinds

    def policy(self, method: str) -> str:
        return "write"

    def operations(self) -> Operations:
        ids = many(UUID)
        outcome = record({"created": ids, "changed": ids, "unchanged": ids})
        writings = [(kind.listing.plural, kind.writing) for kind in self._kinds]
        outcomes = {**record({name: outcome for name, _ in writings}), "required": []}
        body = record(
            {name: many(having(writing.shape, ["id"])) for name, writing in writings if writing}
        )
        return {
            "POST": Operation(
                "Create or replace objects of several kinds, which may refer to each other; all "
                "of them or none.",
                {200: Answer("what became of each, by its id", under("document", outcomes))},
                [*BODY, 409],
                body={**body, "required": []},
            )
        }

    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        plurals = [kind.listing.plural for kind in self._kinds]
        raw = document.read_all(request, plurals, self._api.max_body_bytes)
        items = {plural: _items(plural, raw[plural]) for plural in plurals if plural in raw}
        _check_number(sum(map(len, items.values())), self._api.max_objects)
        sections = [
            _Section(kind, kind.writing, _placed(plural, kind.writing.body, items[plural]))
            for kind in self._kinds
            if (plural := kind.listing.plural) in items and kind.writing is not None
        ]
        casts, outcome = self._post(sections)
        self._api.caster.cast(casts)
        response.media = {"document": outcome}

    @retried
    def _post(self, sections: Sequence[_Section]) -> tuple[Casts, Mapping[str, Any]]:
        casts = Casts()
        outcome: dict[str, Any] = {}
        with self._api.database.writer() as session:
            for section in sections:
                written = section.writing.put(session, section.placed, clock.now())
                casts |= written.casts
                outcome[section.kind.listing.plural] = _outcome(written, section.placed)
        return casts, outcome


def _outcome(written: Written, placed: Placed[Any]) -> dict[str, list[str]]:
    ids = [body.id for _, body in placed]
    return {
        "created": [id_ for id_ in ids if id_ in written.created],
        "changed": [id_ for id_ in ids if id_ in written.changed],
        "unchanged": [id_ for id_ in ids if id_ not in written.created | written.changed],
    }


def _items(plural: str, raw: object) -> Sequence[object]:
    if not isinstance(raw, list):
        raise Invalid(plural, raw, "must be a list of objects")
    return raw


def _check_number(objects: int, most: int) -> None:
    if objects > most:
        raise TooLarge(f"a request has at most {most} objects, not {objects}")


def _placed(plural: str, body: type[Any], items: Sequence[object]) -> Placed[Any]:
    placed: list[tuple[str, Any]] = []
    seen: dict[str, int] = {}
    for place, item in enumerate(items):
        path = f"{plural}.{place}"
        read = bodies.read_one_of_many(body, path, item)
        if read.id in seen:
            other = f"{plural}.{seen[read.id]}"
            raise Invalid(f"{path}.id", read.id, f"the same id as that of {other}")
        seen[read.id] = place
        placed.append((f"{path}.", read))
    return placed
