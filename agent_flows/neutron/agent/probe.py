"""Checks every other second that the switch answers, and reports why if not."""

from collections.abc import Callable

from agent_flows.openflow.ofctl import Ofctl, SwitchError, SwitchUnreachable, Timeout, ToolStuck
from agent_flows.report import Trouble
from agent_flows.supervision import Loop, Troubles

SECONDS = 2
"""Limit for an answer, and pause between two probes."""


class Probe:
    """Sends an OpenFlow echo with ovs-ofctl: Neutron's agent may not be root and could not open the
    bridge's socket.

    No answer is the trouble SWITCH, a missing bridge BRIDGE: no proof of the host's ports holds
    then. Troubles of ovs-ofctl itself, which do not concern the ports, are OPENFLOW.
    ``bridge_exists`` reads OVSDB; ``answered`` is called after each answer.
    """

    def __init__(
        self,
        ofctl: Ofctl,
        bridge: str,
        bridge_exists: Callable[[], bool],
        troubles: Troubles,
        seconds: float = SECONDS,
        *,
        answered: Callable[[], None] = lambda: None,
    ) -> None:
        self._ofctl, self._bridge, self._bridge_exists = ofctl, bridge, bridge_exists
        self._troubles, self._seconds = troubles, seconds
        self._answered = answered
        self._loop = Loop("agent_flows probe", self._step, troubles, Trouble.OPENFLOW)

    def start(self) -> None:
        self._loop.start()

    def stop(self, timeout: float) -> None:
        """End the thread after the current probe."""
        self._loop.stop(timeout)

    def _step(self) -> None:
        self._loop.stopping.wait(self._seconds)
        try:
            self._ofctl.probe()
        except SwitchUnreachable as exc:
            self._unreachable(exc)
        except ToolStuck as exc:
            self._troubles.report(Trouble.OPENFLOW, str(exc))
        except Timeout as exc:
            self._troubles.report(Trouble.SWITCH, f"ovs-vswitchd does not answer: {exc}")
        except SwitchError as exc:
            # ovs-ofctl could not send the echo, or not read the answer.
            self._troubles.report(Trouble.OPENFLOW, f"{exc.message}: {exc.detail}")
        else:
            for source in (Trouble.SWITCH, Trouble.BRIDGE, Trouble.OPENFLOW):
                self._troubles.clear(source)
            self._answered()

    def _unreachable(self, exc: SwitchError) -> None:
        if self._bridge_exists():
            self._troubles.clear(Trouble.BRIDGE)
            self._troubles.report(
                Trouble.SWITCH, f"ovs-vswitchd cannot be reached on {self._bridge}: {exc.detail}"
            )
        else:
            self._troubles.clear(Trouble.SWITCH)
            self._troubles.report(Trouble.BRIDGE, f"bridge {self._bridge} is gone")
