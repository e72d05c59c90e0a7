"""Sets up a process: options, logging; and waits for the signal to stop it."""

import copy
import gc
import importlib.metadata
import logging
import os
import re
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType

from oslo_config import cfg
from oslo_log import log

from agent_flows import conf as options
from agent_flows import process_report
from agent_flows.printable import printable

PROJECT = "agent_flows"

# Seconds for what is done at exit, such as sending the last spans.
_END_SECONDS = 5.0

# The place of a value in the errors of oslo.config.
_PLACE = re.compile(r"from LocationInfo\(location=<[^>]*>, detail='([^']*)'\)")

# Libraries whose INFO lines are about themselves, not about ports.
_QUIET = ["oslo_service=WARNING", "cotyledon=WARNING", "taskflow=WARNING", "ovsdbapp=WARNING"]


def do_without_unused() -> None:
    """Hide packages that libraries import only if they are installed, and that are not used here.

    eventlet (18 MiB) is imported to check whether it is in use, pygments (4.6 MiB) by Alembic's
    templates to colour tracebacks. Not inside Neutron, whose libraries need eventlet.
    """
    for name in ("eventlet", "pygments"):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]


def read(argv: Sequence[str], prog: str, conf: cfg.ConfigOpts) -> cfg.ConfigOpts:
    """Read the configuration.

    ``argv`` is the command line without the program's name. Without
    ``--config-file``, ``agent_flows.conf`` and ``<prog>.conf`` are read from
    ``~/.agent_flows``, ``~``, ``/etc/agent_flows`` and ``/etc``.

    Raises :class:`SystemExit` with one line that names the option if the
    configuration is invalid.
    """
    options.register(conf)
    try:
        conf(list(argv), project=PROJECT, prog=prog, version=importlib.metadata.version(PROJECT))
        options.read_every(conf)
    except (cfg.Error, ValueError) as exc:
        reason = _PLACE.sub(r"in \1", " ".join(str(exc).split()))
        raise SystemExit(f"{prog}: {reason}") from None
    return conf


def prepare(argv: Sequence[str], prog: str, conf: cfg.ConfigOpts = cfg.CONF) -> cfg.ConfigOpts:
    """As :func:`read`; and set up logging, and write a report of the process on SIGUSR2.

    Call it once, first in a process' main.
    """
    log.register_options(conf)
    process_report.register(conf)
    log.set_defaults(default_log_levels=[*log.get_default_log_levels(), *_QUIET])
    read(argv, prog, conf)
    log.setup(conf, PROJECT)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_Escaping(handler.formatter or logging.Formatter()))
    if threading.current_thread() is threading.main_thread():
        process_report.on_signal(prog, conf)
    return conf


class _Escaping(logging.Formatter):
    """Escapes control characters, so that quoted text cannot forge lines or move the cursor."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        quoted = copy.copy(record)
        quoted.msg, quoted.args = printable(record.getMessage()), ()
        # The line ends that are left belong to a traceback.
        return "\n".join(printable(line) for line in self._inner.format(quoted).split("\n"))


def started() -> None:
    """Exclude everything that is loaded now from garbage collection.

    Call it once, when the process is ready. Collections are then shorter and
    rarer: they took 2 % of the time for wiring 100 ports, and some took 0.1 s.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)


class Ending:
    """Set by SIGINT or SIGTERM; a second signal has its usual effect.

    Create it and wait for it in the main thread, where Python runs handlers.
    """

    def __init__(self) -> None:
        self._asked = False
        self.failed = False
        """Whether the process ends because it cannot go on."""
        # A thread that waits for a lock may miss a signal that arrives just before it sleeps or
        # in another thread. The byte that Python's own handler writes to this socket stays.
        self._woken, self._wake = socket.socketpair()
        for end in (self._woken, self._wake):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        self._previous = {
            number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)
        }

    def _ask(self, number: int, frame: FrameType | None) -> None:
        for previous, handler in self._previous.items():
            signal.signal(previous, handler)
        self._asked = True

    def fail(self) -> None:
        """The process cannot go on. Any thread may call it."""
        self.failed = self._asked = True
        self._wake.send(b"\0")

    def is_asked(self) -> bool:
        return self._asked

    def wait(self, timeout: float | None = None) -> bool:
        """Wait at most ``timeout`` seconds for the signal; whether it arrived."""
        ends = None if timeout is None else time.monotonic() + timeout
        while not self._asked:
            left = None if ends is None else max(0.0, ends - time.monotonic())
            if not select.select([self._woken], [], [], left)[0]:
                break
            self._woken.recv(4096)
        return self._asked


def bounded_end(code: int) -> int:
    """The exit ``code``; the process ends with it in a few seconds, whatever its threads wait for.

    oslo.messaging tries to send a reply without end while the message bus is away, and futurist
    joins that thread at exit.
    """
    last = threading.Timer(_END_SECONDS, os._exit, (code,))
    last.daemon = True
    last.start()
    return code
