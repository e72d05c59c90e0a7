"""The request of Neutron's API that a thread answers.

Neutron passes neither the request nor its context to those who extend a resource. What costs a
statement, or depends on who asks, is read for a request that asks for it and for nothing else:
Neutron itself reads ports all the time.
"""

from dataclasses import dataclass
from typing import Any

import pecan


@dataclass(frozen=True)
class Reading:
    """A GET: ``resource_id`` of one resource, None of a list; ``fields`` that it names, if any."""

    context: Any
    resource_id: str | None
    fields: frozenset[str]

    def asks_for(self, name: str) -> bool:
        """Whether it names the field; one resource has all fields if none is named."""
        return name in self.fields if self.fields else self.resource_id is not None


def reading(collection: str) -> Reading | None:
    """The GET of ``collection`` that this thread answers, None if it does anything else."""
    try:
        method, known = pecan.request.method, pecan.request.context
    except AttributeError:  # outside of a request
        return None
    if method != "GET" or known.get("collection") != collection or "query_params" not in known:
        return None
    named = frozenset(known["query_params"].get("fields") or ())
    return Reading(known["neutron_context"], known.get("resource_id"), named)
