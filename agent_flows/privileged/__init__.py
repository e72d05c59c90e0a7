"""What needs a capability: a helper process does it for the agent, by oslo.privsep."""

import os
import signal
import threading
from collections.abc import Callable

from oslo_log import log
from oslo_privsep import capabilities, daemon, priv_context

LOG = log.getLogger(__name__)

NEEDED = (capabilities.CAP_NET_ADMIN,)
"""For links; all that the helper has. Open vSwitch is reached by the permissions of its sockets."""

# Seconds; the kernel changes 100 links in a few milliseconds.
_LIMIT = 30


class NotPermitted(PermissionError):
    """This process has not the capabilities that its helper needs."""


class _Context(priv_context.PrivContext):
    """oslo.privsep would start a helper that has ended again by sudo. Here nothing is left that
    could: :func:`start` has the process end instead."""

    def start(self, method: priv_context.Method = priv_context.Method.ROOTWRAP) -> None:
        if method is not priv_context.Method.FORK:
            raise BrokenPipeError("the agent's privileged helper has ended")
        super().start(method)


context = _Context(
    __name__,
    cfg_section="agent_flows_privsep",
    pypath=f"{__name__}.context",
    capabilities=NEEDED,
    timeout=_LIMIT,
)


def start(ended: Callable[[], None]) -> None:
    """Fork the helper, and give up its capabilities in this process, of root too.

    Call it before the first thread: threads and what they start keep what they have. The helper
    ends with this process; should it end before, ``ended`` is called in a thread. Raises
    :class:`NotPermitted`, or FailedToDropPrivileges of oslo.privsep.
    """
    if missing := set(NEEDED).difference(capabilities.get_caps()[1]):
        names = ", ".join(capabilities.CAPS_BYVALUE[each] for each in missing)
        raise NotPermitted(f"needs {names}, for links: use its systemd unit, or root")
    # capset(2) is for the calling thread, and oslo.privsep starts one right after the fork.
    os.register_at_fork(after_in_parent=_give_up)
    # Signals are the agent's: it ends the helper by the end of their connection.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        context.start(priv_context.Method.FORK)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    threading.Thread(
        target=_watch, args=(context.channel, ended), name="privileged-helper", daemon=True
    ).start()


def _give_up() -> None:
    """Reduces the ambient capabilities, too (capabilities(7))."""
    capabilities.drop_all_caps_except(
        *([held for held in held_so if held not in NEEDED] for held_so in capabilities.get_caps())
    )


def _watch(channel: daemon.ForkingClientChannel, ended: Callable[[], None]) -> None:
    # It reads until the helper's end of the connection is closed.
    channel.reader_thread.join()
    LOG.critical("The privileged helper has ended")
    ended()
