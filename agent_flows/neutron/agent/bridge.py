"""What Neutron's agent must leave alone, and must not do too early, on its integration bridge."""

from collections.abc import Callable, Iterable, Set
from typing import Any

from agent_flows.neutron.agent import quarantine
from agent_flows.openflow import cookie

_OWNERS = (cookie.OWNER, quarantine.OWNER)


class ReservedCookies(set[int]):
    """Cookies of flows that are not stale: those reserved one by one, and every one of ours.

    The agent deletes all others once it has processed its ports
    (neutron/plugins/ml2/drivers/openvswitch/agent/openflow/native/ofswitch.py,
    ``{cookies seen} - reserved_cookies``).
    """

    def __contains__(self, value: object) -> bool:
        ours = isinstance(value, int) and value >> 48 in _OWNERS
        return ours or super().__contains__(value)

    def __rsub__(self, others: Set[Any]) -> set[Any]:
        return {each for each in others if each not in self}


class Reserved:
    """Whether a flow with this cookie, which is not the firewall's, is somebody's whom we know:
    the quarantine's, the agent's own, or that of an extension of it."""

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
    """Spare our flows when the agent cleans up on ``bridge``, and call ``before_it_opens`` each
    time before it installs its default flows, NORMAL among them.

    That is after a restart of Open vSwitch: until then nothing passes, and from
    then on every port that has not been programmed. The agent tells of the
    restart (OVS_RESTARTED) only later.

    A bridge without these methods, as ovs_lib.OVSBridge, has no such habits.
    """
    if not hasattr(bridge, "reserved_cookies"):
        return
    bridge.before_it_opens = before_it_opens
    kind = type(bridge)
    if not issubclass(kind, _Watched):
        bridge.__class__ = type(f"Watched{kind.__name__}", (_Watched, kind), {})
