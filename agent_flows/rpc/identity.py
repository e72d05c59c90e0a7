"""Identifies the agent's process that reports for a host: a host name alone does not."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import pydantic
from pydantic.dataclasses import dataclass as validated

from agent_flows.validation import STRICT, Invalid, Uuid, parse

_KEY = "agent_flows_agent"
_MOST_PREDECESSORS = 16


class HostTaken(Exception):
    """Another agent reports for the host; the refused one tries again later.

    ``reason`` is one line with the other agent and its last heartbeat.
    """

    def __init__(self, host: str, reason: str) -> None:
        super().__init__(f"host {host} is taken: {reason}")
        self.host = host
        self.reason = reason


@dataclass(frozen=True)
class Proof:
    """The public key that signed a call, the call's number, and the key that vouches for it as its
    successor. Made by :mod:`agent_flows.rpc.signing` only, after it verified the signatures."""

    key: str
    number: int
    succeeds: str | None = None


@validated(frozen=True, config=STRICT)
class Identity:
    """An agent's process: every start has a new ``boot_id``.

    ``predecessors`` are earlier boot ids of the same state directory, newest
    first: the agent takes over from them at once, and from any other agent only
    when that one sends no heartbeats. They are part of the RPC context, which an
    older server ignores. ``proof`` is what the server knows of the sender of a signed call; a
    message cannot contain it.
    """

    boot_id: Uuid
    predecessors: Annotated[tuple[Uuid, ...], pydantic.Field(max_length=_MOST_PREDECESSORS)] = ()
    proof: Proof | None = None

    @classmethod
    def following(cls, earlier: tuple[str, ...]) -> "Identity":
        """The identity of a process that starts now; ``earlier`` newest first."""
        return cls(str(uuid.uuid4()), earlier[:_MOST_PREDECESSORS])

    def to_context(self) -> dict[str, Any]:
        """The RPC context of every call."""
        return {_KEY: {"boot_id": self.boot_id, "predecessors": list(self.predecessors)}}


_ADAPTER = pydantic.TypeAdapter(Identity)


def from_context(ctxt: Mapping[str, Any]) -> Identity | None:
    """The sender of a call; None for an agent of a release without identities.

    Raises :class:`Invalid`.
    """
    raw = ctxt.get(_KEY) if isinstance(ctxt, Mapping) else None
    if raw is None:
        return None
    if isinstance(raw, Mapping) and "proof" in raw:
        raise Invalid("agent", raw, "proof: not allowed")
    if isinstance(raw, Mapping) and isinstance(raw.get("predecessors"), list):
        raw = {**raw, "predecessors": tuple(raw["predecessors"])}
    try:
        return parse(_ADAPTER, raw)
    except Invalid as exc:
        raise Invalid("agent", raw, exc.reason) from None
