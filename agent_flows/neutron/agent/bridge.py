"""Keeps Neutron's agent from deleting our flows and from opening its bridge too early."""

from collections.abc import Callable, Iterable, Set
from typing import Any

from agent_flows.neutron.agent import quarantine
from agent_flows.openflow import cookie

_OWNERS = (cookie.OWNER, quarantine.OWNER)


class ReservedCookies(set[int]):
    """The agent's reserved cookies and every cookie of ours.

    The agent deletes flows with other cookies once it has processed its ports
    (neutron/plugins/ml2/drivers/openvswitch/agent/openflow/native/ofswitch.py,
    ``{cookies seen} - reserved_cookies``).
    """

    def __contains__(self, value: object) -> bool:
        ours = isinstance(value, int) and value >> 48 in _OWNERS
        return ours or super().__contains__(value)

    def __rsub__(self, others: Set[Any]) -> set[Any]:
        return {value for value in others if value not in self}


class Reserved:
    """Whether a flow with this cookie, which is not the firewall's, has a known owner: the
    quarantine, the agent or an extension of it."""

    def __init__(self, bridge: Any) -> None:
        self._bridge = bridge

    def __call__(self, value: int) -> bool:
        return (
            value >> 48 == quarantine.OWNER
            or value == self._bridge.default_cookie
            or value in getattr(self._bridge, "reserved_cookies", ())
        )


class _Watched:
    """Mixed into the class of the agent's bridge object."""

    before_it_opens: Callable[[], None]

    @property
    def reserved_cookies(self) -> ReservedCookies:
        reserved: Iterable[int] = super().reserved_cookies  # type: ignore[misc]
        return ReservedCookies(reserved)

    def setup_default_table(self, *args: Any, **kwargs: Any) -> None:
        self.before_it_opens()
        super().setup_default_table(*args, **kwargs)  # type: ignore[misc]


def watch(bridge: Any, before_it_opens: Callable[[], None]) -> None:
    """Keep our flows when the agent cleans up ``bridge``, and call ``before_it_opens`` each time
    before the agent installs its default flows, NORMAL among them.

    That is after a restart of Open vSwitch: until then no packet passes, and from
    then on those of every port without flows. The agent publishes the restart
    (OVS_RESTARTED) only later.

    A bridge without these methods, such as ovs_lib.OVSBridge, is left as it is.
    """
    if not hasattr(bridge, "reserved_cookies"):
        return
    bridge.before_it_opens = before_it_opens
    kind = type(bridge)
    if not issubclass(kind, _Watched):
        bridge.__class__ = type(f"Watched{kind.__name__}", (_Watched, kind), {})
