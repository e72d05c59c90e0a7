"""The status page of the server, from its database: what the API shows, under the same policy."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import falcon
from sqlalchemy.orm import Session

from agent_flows.page import pages, web
from agent_flows.page.source import Found, Source, View
from agent_flows.server.core import agent_view, clock
from agent_flows.server.core.directory import PortDirectory
from agent_flows.server.core.listing import one, page
from agent_flows.server.core.liveness import Liveness, Rules
from agent_flows.server.standalone.api import kinds
from agent_flows.server.standalone.api.resources import Api
from agent_flows.server.standalone.directory import OwnDirectory


class _Database:
    """The page's source in one transaction."""

    def __init__(self, session: Session, rules: Rules, max_limit: int) -> None:
        self._session = session
        self._rules = rules
        self._max_limit = max_limit
        self._directory: PortDirectory = OwnDirectory()
        known = (kinds.ports(rules), kinds.agents(rules), kinds.TASKS, kinds.PROBLEMS)
        self._listings = {kind.listing.plural: kind.listing for kind in known}

    def counts(self) -> Mapping[str, Mapping[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for (host, _, state), number in self._directory.counts(self._session).items():
            of_host = found.setdefault(host, {})
            of_host[state] = of_host.get(state, 0) + number
        return found

    def troubled(self) -> Mapping[str, str]:
        return agent_view.troubled(self._session, Liveness(self._rules, clock.now()))

    def find(self, plural: str, params: Mapping[str, Sequence[str]]) -> Found:
        found = page(self._session, self._listings[plural], params, self._max_limit)
        return Found(found.items, found.marker)

    def one(self, plural: str, resource_id: str) -> View | None:
        return one(self._session, self._listings[plural], resource_id)


def routes(api: Api) -> dict[str, object]:
    """The resources of the status page by their paths."""

    @contextmanager
    def source() -> Iterator[Source]:
        with api.database.reader() as session:
            yield _Database(session, api.rules, api.max_limit)

    return web.routes(web.Site(source, clock.now))


def refuse(response: falcon.Response, kind: str, message: str) -> None:
    """Answer a page with the message; the status is the caller's."""
    web.show(response, pages.problem(kind, message, clock.now()))
