"""Sends the reports of the outbox; one is deleted only when the server has acknowledged it."""

import logging
import threading
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import oslo_messaging
from oslo_log import log

from agent_flows.fairness import at_once
from agent_flows.report import FlowName, FlowReport, Trouble
from agent_flows.reporting.observer import UNOBSERVED, Observer
from agent_flows.reporting.outbox import Outbox
from agent_flows.rpc import transport
from agent_flows.rpc.agent import host_taken
from agent_flows.rpc.answers import Held, Receipt, is_no_fault
from agent_flows.supervision import Backoff, Loop, Troubles, one_line

LOG = log.getLogger(__name__)

# Bytes of a message around its reports.
_ENVELOPE_BYTES = 64 * 1024
# To sign and encode a message takes 0.1 ms a report.
_GREEN_REPORTS = 100
_BACKOFF = Backoff(initial=0.5, maximum=10.0)
_IDLE = 1.0
_TAKEN_PAUSE = 5.0


class Client(Protocol):
    """The agent's RPC client, as far as the reporter needs it."""

    def report(self, reports: Sequence[FlowReport]) -> Receipt: ...


class Reporter:
    """One thread that sends reports, oldest first, with backoff until the server acknowledges.

    The thread calls ``lost`` with the ports whose stored reports are unreadable:
    they must be reported again. While reports cannot be delivered the trouble is
    REPORTER, or IDENTITY if another agent reports for this host.
    """

    def __init__(
        self,
        outbox: Outbox,
        client: Client,
        troubles: Troubles | None = None,
        *,
        backoff: Backoff = _BACKOFF,
        lost: Callable[[Collection[str]], None] = lambda port_ids: None,
        observer: Observer = UNOBSERVED,
    ) -> None:
        self._observer = observer
        self._outbox = outbox
        self._client = client
        self._troubles = troubles or Troubles()
        self._lost = lost
        self._loop = Loop(
            "reporter",
            self._step,
            self._troubles,
            Trouble.REPORTER,
            backoff,
            expected=(oslo_messaging.MessagingException,),
        )
        self._introduced = False
        # Whether the server has answered another call since this thread's last one began.
        self._heard = threading.Event()
        # Ids of the reports in the last message that were not acknowledged.
        self._unacknowledged: frozenset[str] = frozenset()
        self._set_aside: frozenset[str] = frozenset()

    def start(self) -> None:
        self._loop.start()

    def stop(self, timeout: float) -> None:
        """Stop after the current message; unsent reports stay in the outbox."""
        self._loop.stopping.set()
        self._outbox.wake()
        self._heard.set()
        self._loop.stop(timeout)

    def heard(self, held: Held) -> None:
        """Take the answer to a heartbeat of this process: reports are not refused any longer."""
        self._outbox.raise_sequence(held)
        self._heard.set()

    def send_once(self) -> None:
        """Send one message of the oldest reports.

        Raises :class:`oslo_messaging.MessagingException` without an acknowledgement,
        :class:`agent_flows.validation.Invalid` for an invalid answer, and
        :class:`sqlite3.Error`; the reports then stay in the outbox.
        """
        if not self._introduced:
            # Before the first report of this process: after the loss of an outbox
            # the server would ignore lower sequences as old.
            self._outbox.raise_sequence(self._client.report([]))
            self._introduced = True
            if len(self._outbox) == 0:
                return
        number = at_once(transport.MAX_REPORTS, _GREEN_REPORTS)
        reports = self._outbox.oldest(number, transport.MAX_BYTES - _ENVELOPE_BYTES)
        if not reports:
            return
        sent = {item.id: item for item in reports}
        self._observer.sent_again(len(self._unacknowledged & sent.keys()))
        self._unacknowledged = frozenset(sent)
        answer = self._client.report(reports)
        rejected = {r: reason for r, reason in answer.rejected.items() if r in sent}
        for report_id, reason in rejected.items():
            # A port that was unplugged here may be bound to the host it was moved to by now.
            no_fault = is_no_fault(reason) or sent[report_id].flow is FlowName.UNWIRE
            level = logging.INFO if no_fault else logging.ERROR
            report = sent[report_id]
            LOG.log(
                level,
                "The server rejected report %s (%s of %s %s on host %s, attempt %d): %s",
                report_id,
                report.flow,
                report.resource_type,
                report.resource_id,
                report.host,
                report.attempt,
                one_line(reason),
                extra=report.log_fields,
            )
            self._observer.rejected(fault=not no_fault)
        done = sent.keys() & answer.accepted | rejected.keys()
        self._unacknowledged -= done
        self._outbox.forget(done)
        self._outbox.raise_sequence(answer)
        if left := len(sent.keys() - done):
            raise oslo_messaging.MessagingException(
                f"{left} reports were neither accepted nor rejected"
                + (f": {answer.refused}" if answer.refused else "")
            )

    def _step(self) -> None:
        self._outbox.look_at_disk()
        if self._introduced and not self._outbox.wait(_IDLE):
            self._report_set_aside()
            return
        self._heard.clear()
        if not self.deliver():
            self._heard.wait(_TAKEN_PAUSE)

    def deliver(self) -> bool:
        """Send one message in the caller's thread; False if another agent reports for the host.

        Raises what :meth:`send_once` does.
        """
        try:
            self.send_once()
        except Exception as exc:
            if (reason := host_taken(exc)) is None:
                raise
            # Once: the reason contains a time, and every change would be sent at once.
            if Trouble.IDENTITY not in self._troubles.current():
                self._troubles.report(Trouble.IDENTITY, reason)
            return False
        self._troubles.clear(Trouble.IDENTITY)
        self._report_set_aside()
        return True

    def _report_set_aside(self) -> None:
        """Until these ports are reported again, the loss is a trouble of this host."""
        ports = self._outbox.set_aside()
        if ports:
            port_id, reason = next(iter(ports.items()))
            self._troubles.report(
                Trouble.REPORTER,
                f"stored reports of {len(ports)} ports are unreadable and were set aside, "
                f"first that of port {port_id}: {reason}",
            )
        elif self._set_aside:
            self._troubles.clear(Trouble.REPORTER)
        if new := ports.keys() - self._set_aside:
            self._lost(new)
        self._set_aside = frozenset(ports)
