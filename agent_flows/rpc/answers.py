"""What the server answers an agent."""

from typing import Annotated

import pydantic
from pydantic.dataclasses import dataclass

from agent_flows.rpc.revisions import NOT_COMPARED, Digest

NO_SUCH_PORT = "there is no port"
"""Begins the reason why a report of a deleted port is rejected."""

NO_BINDING = "no host is bound to port"
"""Begins the reason why a report of a port without a host is rejected. Neutron may bind the
interface of a router after its agent has plugged it in, and Nova unbinds ports that are plugged."""

MOVED_AWAY = "it was bound here before:"
"""Begins the reason why a report of a port that has moved to another host is rejected: the binding
changed while the report was on its way. Of a host without an earlier report of the port the server
does not know that, and the reason does not begin so."""


def is_no_fault(reason: str) -> bool:
    """Whether a report was rejected because its port changed in the meantime: neither the agent
    nor the server did anything wrong."""
    return reason.startswith((NO_SUCH_PORT, NO_BINDING, MOVED_AWAY))


_Count = Annotated[int, pydantic.Strict(), pydantic.Field(ge=0)]
# A newer server may add fields.
_LENIENT = pydantic.ConfigDict(extra="ignore")


@dataclass(frozen=True, config=_LENIENT)
class Held:
    """The highest sequence of a host's reports that the server has (0 for none).

    ``clock`` is the server's, in microseconds since the epoch; 0 from an older
    server, which does not send it. ``desired``, in the answer to a heartbeat, is the digest of
    what the server desires of the host (:mod:`.revisions`); ``number`` is the highest of the
    host's signed calls (:mod:`.signing`), and a heartbeat that is not ``counted`` was not above it,
    or too far ahead of the server's clock.
    """

    sequence: _Count
    clock: _Count = 0
    desired: Digest = NOT_COMPARED
    number: _Count = 0
    counted: Annotated[bool, pydantic.Strict()] = True


@dataclass(frozen=True, config=_LENIENT, kw_only=True)
class Receipt(Held):
    """The answer to a message of reports, given after the server's transaction committed.

    ``rejected`` maps the id of a report that will never be accepted to the
    reason, ``refused`` is the reason why the whole message was refused.
    """

    accepted: list[str]
    rejected: dict[str, str] = pydantic.Field(default_factory=dict)
    refused: str = ""
