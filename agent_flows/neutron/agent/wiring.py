"""What is wrong with the ports' interfaces, compared with how the agent left them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from agent_flows.errors import ErrorType
from agent_flows.neutron import interfaces
from agent_flows.neutron.interfaces import Bridge, Interface, Link
from agent_flows.openflow import wiring
from agent_flows.openflow.pipeline import DEAD_VLAN
from agent_flows.report import TaskError


@dataclass(frozen=True)
class Look:
    """``replugged`` ports, unplugged ones among them, have another interface than before, or OVSDB
    did not answer. Of those in ``elsewhere`` it did: their interface is another one, or gone."""

    errors: Mapping[str, TaskError]
    replugged: frozenset[str]
    elsewhere: frozenset[str] = frozenset()


class Wiring:
    """Reads the interfaces of one bridge. Safe from any thread.

    The agent keeps a port whose admin_state_up is false on the dead VLAN, and
    any program may have made an interface whose link was never up: both are
    wrong only for a port of which more is known.
    """

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._admin_up: dict[str, bool] = {}
        # The row of the Port of each port whose link was seen up.
        self._was_up: dict[str, object] = {}

    def note_admin_state(self, port_id: str, *, up: bool) -> None:
        """As the server has it."""
        self._admin_up[port_id] = up

    def forget(self, port_ids: Collection[str]) -> None:
        for port_id in port_ids:
            self._admin_up.pop(port_id, None)
            self._was_up.pop(port_id, None)

    def look(self, before: Mapping[str, Interface]) -> Look:
        """Raises :class:`agent_flows.engine.task.TaskFailed` if OVSDB cannot be read."""
        now = interfaces.locate(self._bridge, list(before))
        names = [found.name for found in now.interfaces.values()]
        tags = interfaces.tags(self._bridge, names)
        links = interfaces.links(self._bridge, names)
        errors = dict(now.errors)
        for port_id, found in now.interfaces.items():
            dead = () if self._admin_up.get(port_id) else (DEAD_VLAN,)
            allowed = found.vlan, *dead
            name = found.name
            error = wiring.error(before[port_id], found, name, tags.get(name), allowed)
            error = error or self._error_of(port_id, found, links.get(name))
            if error is not None:
                errors[port_id] = error
        replugged = frozenset(id_ for id_, was in before.items() if now.rows.get(id_) != was.row)
        elsewhere = replugged & (now.rows.keys() | now.absent)
        return Look(errors, replugged, elsewhere)

    def _error_of(self, port_id: str, found: Interface, link: Link | None) -> TaskError | None:
        if link is None:
            return None
        if link.error:
            message = f"Open vSwitch cannot use interface {found.name}: {link.error}"
            return TaskError(ErrorType.INTERFACE_CHANGED, message)
        if link.up:
            self._was_up[port_id] = found.row
        elif link.up is False and self._was_up.get(port_id, link) == found.row:
            return TaskError(ErrorType.LINK_DOWN, f"the link of {found.name} is down")
        return None
