"""Who speaks for a host: one process of an agent, not the host's name alone."""

import uuid
from collections.abc import Mapping
from typing import Annotated, Any

import pydantic
from pydantic.dataclasses import dataclass as validated

from agent_flows.validation import STRICT, Invalid, Uuid, parse

_KEY = "agent_flows_agent"
_MOST_PREDECESSORS = 16


class HostTaken(Exception):
    """Another agent speaks for the host. The agent that hears this tries again, later.

    ``host`` is the host's name, ``reason`` one line that says who has it and
    since when it was last heard.
    """

    def __init__(self, host: str, reason: str) -> None:
        super().__init__(f"host {host} is taken: {reason}")
        self.host = host
        self.reason = reason


@validated(frozen=True, config=STRICT)
class Identity:
    """An agent's process: ``boot_id`` is made anew at every start.

    ``predecessors`` are the boot ids that the same state directory had before,
    newest first: the agent takes over from them at once, and from any other
    only when that one is silent. They travel in the RPC context, so that a
    server that does not know them ignores them.
    """

    boot_id: Uuid
    predecessors: Annotated[tuple[Uuid, ...], pydantic.Field(max_length=_MOST_PREDECESSORS)] = ()

    @classmethod
    def following(cls, earlier: tuple[str, ...]) -> "Identity":
        """The identity of a process that starts now; ``earlier`` newest first."""
        return cls(str(uuid.uuid4()), earlier[:_MOST_PREDECESSORS])

    def to_context(self) -> dict[str, Any]:
        """The RPC context to send with every call."""
        return {
            _KEY: {"boot_id": self.boot_id, "predecessors": list(self.predecessors)},
        }


_ADAPTER = pydantic.TypeAdapter(Identity)


def from_context(ctxt: Mapping[str, Any]) -> Identity | None:
    """Who sent a call; None for an agent of a release without identities.

    Raises :class:`Invalid`.
    """
    raw = ctxt.get(_KEY) if isinstance(ctxt, Mapping) else None
    if raw is None:
        return None
    if isinstance(raw, Mapping) and isinstance(raw.get("predecessors"), list):
        raw = {**raw, "predecessors": tuple(raw["predecessors"])}
    try:
        return parse(_ADAPTER, raw)
    except Invalid as exc:
        raise Invalid("agent", raw, exc.reason) from None
