"""Several processes of one server: the first one starts them, and starts again one that ends.

Cotyledon does the supervision; it is what oslo.service uses on threads.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn, Protocol

import cotyledon
from oslo_log import log

from agent_flows import process
from agent_flows.supervision import described

if TYPE_CHECKING:
    from cotyledon.types import WorkerId  # came with cotyledon 2.2

LOG = log.getLogger(__name__)

# Seconds that a worker has for its end. Its parts need less, each with a limit of its own.
_PATIENCE = 60


class Service(Protocol):
    """What a worker runs; ``start`` returns when it works, ``stop`` when it has ended."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


class _Worker(cotyledon.Service):
    name = "worker"

    def __init__(
        self,
        number: WorkerId,
        make: Callable[[int], Service],
        expected: tuple[type[Exception], ...],
    ) -> None:
        super().__init__(number)
        self._service = make(number)
        self._expected = expected

    def run(self) -> None:
        try:
            self._service.start()
        except self._expected as exc:
            LOG.error("Worker %d cannot start: %s", self.worker_id, described(exc))
            raise SystemExit(1) from None
        process.started()
        LOG.info("Worker %d has started", self.worker_id)

    def terminate(self) -> None:
        # The start may still wait for the message bus; the process ends nevertheless.
        self._service.stop()


def supervise(
    number: int,
    make: Callable[[int], Service],
    expected: tuple[type[Exception], ...],
    reload: Callable[[], object],
) -> NoReturn:
    """Run ``number`` workers until SIGINT or SIGTERM; call it in the main thread.

    Each is a process that was forked from this one and runs what ``make`` makes
    for its number, from 0. Nothing that ``make`` needs may have threads or
    connections here. A worker that ends is started again, with a pause if it ends
    at once. ``expected`` is how a start may fail (one line in the log).

    SIGINT and SIGTERM end the workers in order, a second SIGINT ends this process
    at once. SIGHUP calls ``reload`` here, then ends and starts every worker. If
    this process is killed, its workers end in order.
    """
    # Cotyledon ends everything at once on SIGINT and has no hook for it; in order is what Ctrl-C
    # means here. While the workers end its main thread waits for them: a second SIGINT needs
    # another thread.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    threading.Thread(target=_interrupts, name="interrupts", daemon=True).start()
    manager = cotyledon.ServiceManager(graceful_shutdown_timeout=_PATIENCE)
    manager.register_hooks(on_dead_worker=_ended, on_reload=lambda: _reload(reload))
    manager.add(_Worker, number, args=(make, expected))
    process.started()
    manager.run()
    raise AssertionError("the manager ends the process")


def _interrupts() -> None:
    signal.sigwait({signal.SIGINT})
    os.kill(os.getpid(), signal.SIGTERM)
    signal.sigwait({signal.SIGINT})
    os.kill(os.getpid(), signal.SIGKILL)


def _reload(reload: Callable[[], object]) -> None:
    LOG.info("Reading the configuration again and starting every worker again")
    reload()


def _ended(service_id: object, number: int, code: int) -> None:
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    level = logging.WARNING if code else logging.INFO
    LOG.log(level, "Worker %d has ended with %s; starting it again", number, how)
