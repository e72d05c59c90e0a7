"""Desired state of a host in short: revisions, and the digest that agent and server compare.

Equal digests mean that the agent has the desired state that the server has, so
that a message between them that was lost is noticed at the next heartbeat.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from typing import Annotated, Any

import pydantic
from pydantic.dataclasses import dataclass

from agent_flows.validation import Invalid, Revision, Uuid, parse

NOT_COMPARED = ""
"""In the place of a digest: there is nothing to compare, or the peer's release does not compare."""

_BYTES = 16
Digest = Annotated[str, pydantic.Strict(), pydantic.StringConstraints(pattern=r"^([0-9a-f]{32})?$")]
"""As :func:`digest` makes it, or :data:`NOT_COMPARED`."""
_DIGEST: pydantic.TypeAdapter[str] = pydantic.TypeAdapter(Digest)

KEY = "desired"
"""The field of a heartbeat's state, and of its answer, that contains the digest."""


def digest(lines: Iterable[tuple[str, str, int]]) -> str:
    """The digest of these (kind, id, revision), in any order and with repetitions: 32 hex digits.

    Not a protection against collisions that somebody makes: both sides are ours.
    """
    texts = sorted({f"{kind} {id_} {revision}" for kind, id_, revision in lines})
    return hashlib.blake2b("\n".join(texts).encode(), digest_size=_BYTES).hexdigest()


def digest_of(state: Mapping[str, Any]) -> str:
    """The agent's digest in its heartbeat's ``state``; :class:`Invalid` if it cannot be one."""
    value = state.get(KEY, NOT_COMPARED)
    try:
        return parse(_DIGEST, value)
    except Invalid:
        raise Invalid(KEY, value, "must be 32 hexadecimal digits in lower case") from None


# As many as the server has, as in the answer to get_ports: a limit would make the heartbeats of a
# large host fail.
ByIds = dict[Uuid, Revision]


@dataclass(frozen=True, config=pydantic.ConfigDict(extra="ignore"))
class Revisions:
    """What a server desires of a host: every port bound to it, and every security group of those
    with port security. ``awaited`` are ports of which the server knows nothing (UNKNOWN), and
    wants a report. A newer server may add fields.

    Inside Neutron revisions are digests of contents (:mod:`agent_flows.neutron.content`);
    ``members`` has one of the members of each security group that rules refer to, and
    ``address_groups`` one of the addresses. In the own server's the revisions of
    ``security_groups`` cover both.
    """

    ports: ByIds
    security_groups: ByIds
    awaited: tuple[Uuid, ...] = ()
    members: ByIds = field(default_factory=dict)
    address_groups: ByIds = field(default_factory=dict)

    def digest(self) -> str:
        return digest(
            [
                *_lines("port", self.ports),
                *_lines("security_group", self.security_groups),
                *(("awaited", port, 0) for port in self.awaited),
                *_lines("members", self.members),
                *_lines("address_group", self.address_groups),
            ]
        )

    def to_wire(self) -> dict[str, Any]:
        return {
            "ports": dict(self.ports),
            "security_groups": dict(self.security_groups),
            "awaited": list(self.awaited),
            "members": dict(self.members),
            "address_groups": dict(self.address_groups),
        }


def _lines(kind: str, revisions: Mapping[str, int]) -> Iterator[tuple[str, str, int]]:
    return ((kind, id_, revision) for id_, revision in revisions.items())
