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
    quarantine, the agent or an extension of it.

    What an earlier process of the agent wrote has a cookie that is not reserved any more, and
    stays until the agent has processed its ports and deletes it (``cleanup_flows``). Until
    then cookies that were there before this process are known, too. None is 0: the agent
    makes random ones.
    """

    def __init__(self, bridge: Any) -> None:
        self._bridge = bridge
        self._earlier: frozenset[int] = frozenset()

    def __call__(self, value: int) -> bool:
        return (
            value >> 48 == quarantine.OWNER
            or value == self._bridge.default_cookie
            or value in getattr(self._bridge, "reserved_cookies", ())
            or value in self._earlier
        )

    def found(self, cookies: Iterable[int]) -> None:
        """These were on the bridge before this process wrote to it."""
        self._earlier = frozenset(cookies) - {0}

    def cleaned_up(self) -> None:
        """The agent has deleted what earlier processes wrote."""
        self._earlier = frozenset()


class _Watched:
    """Mixed into the class of the agent's bridge object."""

    before_it_opens: Callable[[], None]
    after_cleanup: Callable[[], None]

    @property
    def reserved_cookies(self) -> ReservedCookies:
        reserved: Iterable[int] = super().reserved_cookies  # type: ignore[misc]
        return ReservedCookies(reserved)

    def setup_default_table(self, *args: Any, **kwargs: Any) -> None:
        self.before_it_opens()
        super().setup_default_table(*args, **kwargs)  # type: ignore[misc]

    def cleanup_flows(self, *args: Any, **kwargs: Any) -> None:
        super().cleanup_flows(*args, **kwargs)  # type: ignore[misc]
        self.after_cleanup()


def watch(
    bridge: Any, before_it_opens: Callable[[], None], after_cleanup: Callable[[], None]
) -> None:
    """Keep our flows when the agent cleans up ``bridge``, and call ``after_cleanup`` then; call
    ``before_it_opens`` each time before the agent installs its default flows, NORMAL among them.

    The latter is after a restart of Open vSwitch: until then no packet passes, and from
    then on those of every port without flows. The agent publishes the restart
    (OVS_RESTARTED) only later.

    A bridge without these methods, such as ovs_lib.OVSBridge, is left as it is.
    """
    if not hasattr(bridge, "reserved_cookies"):
        return
    bridge.before_it_opens, bridge.after_cleanup = before_it_opens, after_cleanup
    kind = type(bridge)
    if not issubclass(kind, _Watched):
        bridge.__class__ = type(f"Watched{kind.__name__}", (_Watched, kind), {})
