"""Which desired state the agent has, by revision, and what of it differs from the server's."""

import dataclasses
import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from agent_flows.rpc.revisions import Revisions, digest
from agent_flows.spec import DesiredState, PortSpec

# The revision of a group that was not in the answer with its port.
_MISSING = -1


@dataclass(frozen=True)
class _Learnt:
    """A port's revision, and those of its groups: none without port security.

    ``refused``: its spec is invalid, so its groups are not known. It is asked for
    again and again until it is valid.
    """

    revision: int
    groups: Mapping[str, int]
    refused: bool = False


class Knowledge:
    """What the last look at each port bound to this host brought from the server.

    The reconciler applies it, and tries again until that succeeds: what was
    learnt needs no further message. Safe from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ports: dict[str, _Learnt] = {}

    def learn(self, port_ids: Collection[str], state: DesiredState) -> None:
        """``state`` is the server's answer about these ports; one that is not in it is not bound
        to this host."""
        with self._lock:
            for port_id in port_ids:
                if refused := state.refused.get(port_id):
                    before = self._ports.get(port_id)
                    groups = before.groups if before and before.refused else {}
                    self._ports[port_id] = _Learnt(refused.revision, groups, refused=True)
                elif spec := state.ports.get(port_id):
                    self._ports[port_id] = _Learnt(spec.revision, _groups(spec, state))
                else:
                    self._ports.pop(port_id, None)

    def digest(self) -> str:
        """To compare with that of :class:`agent_flows.rpc.revisions.Revisions`."""
        return digest(_lines(self._copy()))

    def differing(self, theirs: Revisions, absent: Collection[str]) -> set[str]:
        """Ports whose specs the agent must read from the server again.

        Of ``absent`` ones, which have no interface and so no flows, the new
        revisions of their groups are only noted. Groups of no port with a valid
        spec count as those of the ports with an invalid one.
        """
        asked = set()
        ports = self._copy()
        known = {id_ for learnt in ports.values() if not learnt.refused for id_ in learnt.groups}
        others = {id_: rev for id_, rev in theirs.security_groups.items() if id_ not in known}
        for port_id in ports.keys() | theirs.ports.keys():
            learnt = ports.get(port_id)
            if learnt is None or learnt.revision != theirs.ports.get(port_id):
                asked.add(port_id)
                continue
            newer = {id_: theirs.security_groups.get(id_, _MISSING) for id_ in learnt.groups}
            if learnt.refused:
                newer = others
            if newer == learnt.groups:
                continue
            if learnt.refused or (port_id in absent and _MISSING not in newer.values()):
                self._note(port_id, learnt, newer)
            else:
                asked.add(port_id)
        return asked

    def _note(self, port_id: str, learnt: _Learnt, groups: Mapping[str, int]) -> None:
        with self._lock:
            # A look may have brought more in the meantime.
            if self._ports.get(port_id) is learnt:
                self._ports[port_id] = dataclasses.replace(learnt, groups=groups)

    def _copy(self) -> dict[str, _Learnt]:
        with self._lock:
            return dict(self._ports)


def _groups(spec: PortSpec, state: DesiredState) -> Mapping[str, int]:
    if not spec.port_security_enabled:
        return {}
    contents = {
        id_: state.security_groups.get(id_) or state.refused.get(id_)
        for id_ in spec.security_groups
    }
    return {id_: found.revision if found else _MISSING for id_, found in contents.items()}


def _lines(ports: Mapping[str, _Learnt]) -> Iterator[tuple[str, str, int]]:
    """A group of two ports that learnt different revisions of it has both: the digest differs."""
    for port_id, learnt in ports.items():
        yield "port", port_id, learnt.revision
        for group, revision in learnt.groups.items():
            yield "security_group", group, revision
