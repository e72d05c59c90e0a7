"""Which ports' rows of OVSDB change, from the replica that Neutron's agent has of it."""

from collections.abc import Callable
from typing import Any

from ovsdbapp.backend.ovs_idl import event

_COLUMNS = {
    "Port": ("tag", "other_config", "vlan_mode", "trunks"),
    "Interface": ("ofport", "error", "admin_state"),
}


class _Changed(event.RowEvent):  # type: ignore[misc]  # ovsdbapp publishes no types
    """Calls ``changed`` with the id of a port, one of whose columns of ``table`` changed."""

    def __init__(self, table: str, changed: Callable[[str], None]) -> None:
        super().__init__((self.ROW_UPDATE,), table, None)
        self._columns, self._changed = _COLUMNS[table], changed

    @property
    def key(self) -> object:
        """Two that call different functions are not one."""
        return super().key, self._changed

    def match_fn(self, event: str, row: Any, old: Any) -> bool:
        """In the replica's thread, for every update: the switch writes each interface's statistics
        every few seconds."""
        return any(hasattr(old, column) for column in self._columns)

    def run(self, event: str, row: Any, old: Any) -> None:
        for interface in row.interfaces if self.table == "Port" else (row,):
            port_id = interface.external_ids.get("iface-id")
            if port_id is not None:
                self._changed(port_id)


def watch(bridge: Any, changed: Callable[[str], None]) -> Callable[[], None]:
    """Call ``changed`` with a port's id, in a thread of the replica's, whenever another tag, ofport
    or state of its interface was written, also by Neutron's agent. Returns what ends that.

    A ``bridge`` object without a replica has no events.
    """
    monitor = getattr(getattr(bridge, "ovsdb", None), "idl_monitor", None)
    if monitor is None:
        return lambda: None
    handler = monitor.notify_handler
    events = [_Changed(table, changed) for table in _COLUMNS]
    handler.watch_events(events)
    return lambda: handler.unwatch_events(events)
