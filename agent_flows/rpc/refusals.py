"""Counts refused messages by a fixed set of reasons, and logs them within limits.

Any client of the bus can send messages, so no text of theirs is kept as a
name, and no number of them fills the log.
"""

import collections
import dataclasses
import threading
import time
from collections.abc import Callable, Sequence

from oslo_log import log

from agent_flows.report import FlowReport
from agent_flows.validation import Invalid

LOG = log.getLogger(__name__)

UNKNOWN = "unknown"
# Fields of messages, the call itself, and what the store refused.
KINDS = frozenset(field.name for field in dataclasses.fields(FlowReport)) | {
    "agent", "call", "change", "desired", "ids", "message", "port_ids", "reports", "security_group",
    "signature", "state", "store", "traces", "version",
}  # fmt: skip
_MOST_REMEMBERED = 1000
_AGAIN = 3600.0
_MINUTE = 60.0
_LINES_A_MINUTE = 20


class Lines:
    """Limits the lines in the log to 20 a minute."""

    def __init__(self) -> None:
        self._began = 0.0
        self._lines = 0

    def may_follow(self) -> bool:
        now = time.monotonic()
        if now - self._began >= _MINUTE:
            self._began, self._lines = now, 0
        self._lines += 1
        return self._lines <= _LINES_A_MINUTE


class Refusals:
    """``counts`` is by reason, of :data:`KINDS` or :data:`UNKNOWN`. Safe from any thread.

    ``counted`` is called with each reason.
    """

    def __init__(self, counted: Callable[[str], None] = lambda reason: None) -> None:
        self._counted = counted
        self.counts: collections.Counter[str] = collections.Counter()
        self._lock = threading.Lock()
        self._logged: collections.OrderedDict[tuple[str, str], float] = collections.OrderedDict()
        self._lines = Lines()

    def add(self, host: str, refused: Sequence[Invalid]) -> None:
        """Count the refused parts of one message, and log the first in at most one line.

        ``host`` is the validated sender.
        """
        if not refused:
            return
        reasons = [_kind(item) for item in refused]
        with self._lock:
            self.counts.update(reasons)
            may_log = self._may_log((host, reasons[0]))
        for reason in reasons:
            self._counted(reason)
        if may_log:
            more = f", and {len(refused) - 1} more in this message" if len(refused) > 1 else ""
            LOG.warning("Refused from %s: %s%s", host, refused[0], more)

    def _may_log(self, what: tuple[str, str]) -> bool:
        """Once an hour for each host and reason, within the limit of :class:`Lines`."""
        now = time.monotonic()
        last = self._logged.get(what)
        if last is not None and now - last < _AGAIN:
            return False
        if not self._lines.may_follow():
            return False
        self._logged[what] = now
        self._logged.move_to_end(what)
        if len(self._logged) > _MOST_REMEMBERED:
            self._logged.popitem(last=False)
        return True


def _kind(refused: Invalid) -> str:
    name = refused.field.partition(".")[0]
    return name if name in KINDS else UNKNOWN
