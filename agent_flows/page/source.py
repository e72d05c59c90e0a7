"""What the page reads: the resources as a REST API shows them, from a database or over HTTP.

The server answers from its database; an API's client can answer as well. The page shows no more
than what the API shows to the same caller.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

View = Mapping[str, Any]
"""A resource, with the fields and values of the REST API."""


@dataclass(frozen=True)
class Found:
    """A page of a list; ``marker`` is where the next one starts, None if this is the last."""

    items: Sequence[View]
    marker: str | None


class Source(Protocol):
    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """The number of ports in each sync_state, by host; "" is for ports of no host."""

    def troubled(self) -> Mapping[str, str]:
        """The hosts whose agent is silent or in trouble, each with one line."""

    def find(self, plural: str, params: Mapping[str, Sequence[str]]) -> Found:
        """The resources that meet the parameters of a request for a list, which have a ``limit``.

        Raises :class:`agent_flows.validation.Invalid` naming the parameter at fault.
        """

    def one(self, plural: str, resource_id: str) -> View | None:
        """The resource with this id, None if there is none."""
