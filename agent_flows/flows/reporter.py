"""Drains the outbox through rpc: a report is forgotten only when the server acknowledged it."""

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import oslo_messaging
from oslo_log import log

from agent_flows.flows.outbox import Outbox
from agent_flows.report import FlowReport
from agent_flows.rpc import transport
from agent_flows.rpc.server import Accepted
from agent_flows.supervision import Backoff

LOG = log.getLogger(__name__)

# Room in a message for the envelope around the reports.
_ENVELOPE_BYTES = 64 * 1024
_BACKOFF = Backoff(initial=0.5, maximum=30.0)


class Client(Protocol):
    """The agent's RPC client, as far as reports go."""

    def report(self, reports: Sequence[FlowReport]) -> Accepted: ...


class Reporter:
    """One thread that sends, oldest first, and tries again with backoff until it is heard.

    ``on_return`` is called in it when the server answers that did not before.
    """

    def __init__(
        self,
        outbox: Outbox,
        client: Client,
        backoff: Backoff = _BACKOFF,
        on_return: Callable[[], None] = lambda: None,
    ) -> None:
        self._outbox = outbox
        self._client = client
        self._backoff = backoff
        self._on_return = on_return
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._drain, name="reporter", daemon=True)
        self._introduced = False

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """End after the message under way; what is not sent stays in the outbox."""
        self._stopping.set()
        self._outbox.wake()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _drain(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            if self._introduced and not self._outbox.wait(timeout=1.0):
                continue
            try:
                self.send_once()
            except oslo_messaging.MessagingException as exc:
                failures += 1
                pause = self._backoff.delay(failures)
                LOG.warning(
                    "The server did not take %d waiting reports (%s: %s); next try in %.1f s",
                    len(self._outbox),
                    type(exc).__name__,
                    str(exc).partition("\n")[0],
                    pause,
                )
                self._stopping.wait(pause)
            else:
                if failures:
                    self._on_return()
                failures = 0

    def send_once(self) -> None:
        """Send one message of the oldest reports.

        Raises :class:`oslo_messaging.MessagingException` if the server did not
        acknowledge; nothing is forgotten then.
        """
        if not self._introduced:
            # Before the first word of this process: where the server stands,
            # or a lost outbox would speak with sequences it takes for old.
            self._outbox.raise_sequence(self._client.report([]).held.sequence)
            self._introduced = True
            if len(self._outbox) == 0:
                return
        reports = self._outbox.oldest(transport.MAX_REPORTS, transport.MAX_BYTES - _ENVELOPE_BYTES)
        answer = self._client.report(reports)
        for report_id, reason in answer.rejected.items():
            LOG.error("The server refused report %s for good: %s", report_id, reason)
        settled = {*answer.accepted, *answer.rejected}
        self._outbox.forget(settled)
        self._outbox.raise_sequence(answer.held.sequence)
        if unsettled := [item.id for item in reports if item.id not in settled]:
            raise oslo_messaging.MessagingException(
                f"{len(unsettled)} reports were neither accepted nor rejected"
            )
