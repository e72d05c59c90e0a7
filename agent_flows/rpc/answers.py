"""What the server answers an agent."""

from typing import Annotated

import pydantic
from pydantic.dataclasses import dataclass

from agent_flows.rpc.revisions import NOT_COMPARED, Digest

NO_SUCH_PORT = "there is no port"
"""Begins the reason why a report of a deleted port is rejected, which is no fault."""

_Count = Annotated[int, pydantic.Strict(), pydantic.Field(ge=0)]
# A newer server may add fields.
_LENIENT = pydantic.ConfigDict(extra="ignore")


@dataclass(frozen=True, config=_LENIENT)
class Held:
    """The highest sequence of a host's reports that the server has (0 for none).

    ``clock`` is the server's, in microseconds since the epoch; 0 from an older
    server, which does not send it. ``desired``, in the answer to a heartbeat, is the digest of
    what the server desires of the host (:mod:`.revisions`).
    """

    sequence: _Count
    clock: _Count = 0
    desired: Digest = NOT_COMPARED


@dataclass(frozen=True, config=_LENIENT, kw_only=True)
class Receipt(Held):
    """The answer to a message of reports, given after the server's transaction committed.

    ``rejected`` maps the id of a report that will never be accepted to the
    reason, ``refused`` is the reason why the whole message was refused.
    """

    accepted: list[str]
    rejected: dict[str, str] = pydantic.Field(default_factory=dict)
    refused: str = ""
