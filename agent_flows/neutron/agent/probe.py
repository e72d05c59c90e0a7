"""Asks the switch time and again whether it is there, and says what keeps it from answering."""

from collections.abc import Callable

from agent_flows.openflow.ofctl import Ofctl, SwitchError, SwitchUnreachable, Timeout, ToolStuck
from agent_flows.report import Trouble
from agent_flows.supervision import Loop, Troubles

SECONDS = 2
"""That the switch may take for an answer, and between two questions."""


class Probe:
    """One OpenFlow echo every other second, by ovs-ofctl: the bridge's socket is root's, and
    Neutron's agent need not be.

    No answer is the trouble SWITCH; that the bridge is gone, BRIDGE: what was proven of the host's
    ports does not hold then. ``bridge_exists`` says what OVSDB knows of the bridge. ovs-ofctl's own
    troubles, which say nothing of ports, are OPENFLOW.
    """

    def __init__(
        self,
        ofctl: Ofctl,
        bridge: str,
        bridge_exists: Callable[[], bool],
        troubles: Troubles,
        seconds: float = SECONDS,
    ) -> None:
        self._ofctl, self._bridge, self._bridge_exists = ofctl, bridge, bridge_exists
        self._troubles, self._seconds = troubles, seconds
        self._loop = Loop("agent_flows probe", self._step, troubles, Trouble.OPENFLOW)

    def start(self) -> None:
        self._loop.start()

    def stop(self, timeout: float) -> None:
        """End the thread after the question under way."""
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
            # ovs-ofctl could not ask, or made nothing of the answer.
            self._troubles.report(Trouble.OPENFLOW, f"{exc.message}: {exc.detail}")
        else:
            for source in (Trouble.SWITCH, Trouble.BRIDGE, Trouble.OPENFLOW):
                self._troubles.clear(source)

    def _unreachable(self, exc: SwitchError) -> None:
        if self._bridge_exists():
            self._troubles.clear(Trouble.BRIDGE)
            self._troubles.report(
                Trouble.SWITCH, f"ovs-vswitchd cannot be reached on {self._bridge}: {exc.detail}"
            )
        else:
            self._troubles.clear(Trouble.SWITCH)
            self._troubles.report(Trouble.BRIDGE, f"bridge {self._bridge} is gone")
