"""Sets up a process: options, logging, threads; and waits for the signal to end it."""

import copy
import gc
import importlib.metadata
import logging
import re
import select
import signal
import socket
import sys
import time
import warnings
from collections.abc import Sequence
from types import FrameType

from oslo_config import cfg
from oslo_log import log
from oslo_service import backend

from agent_flows import conf as options
from agent_flows.printable import printable

PROJECT = "agent_flows"

# Where oslo.config read a value, as it writes that into its errors.
_PLACE = re.compile(r"from LocationInfo\(location=<[^>]*>, detail='([^']*)'\)")

# What these say at INFO is about themselves, not about ports.
_QUIET = ["oslo_service=WARNING", "cotyledon=WARNING", "taskflow=WARNING", "ovsdbapp=WARNING"]


def use_threads() -> None:
    """Choose oslo.service's threading backend; to be called before oslo.messaging is imported.

    It asks for a backend as soon as it is imported, and would get eventlet.
    """
    # futurist imports eventlet where it finds it, to ask whether it is in use; it never is.
    warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")
    backend.init_backend(backend.BackendType.THREADING)


def do_without_eventlet() -> None:
    """Have libraries find no eventlet, which they import only to ask whether it is in use.

    It takes 18 MiB with what it imports itself. Only for a process that is all
    ours: Neutron's libraries need it.
    """
    sys.modules.setdefault("eventlet", None)  # type: ignore[arg-type]


def prepare(argv: Sequence[str], prog: str, conf: cfg.ConfigOpts = cfg.CONF) -> cfg.ConfigOpts:
    """Read the configuration and set up logging and the threading backend.

    ``argv`` is the command line without the program's name. Without
    ``--config-file`` the usual places are looked up: ``agent_flows.conf`` and
    ``<prog>.conf`` in ``~/.agent_flows``, ``~``, ``/etc/agent_flows`` and
    ``/etc``. Called once, first thing in a process' main.

    Raises :class:`SystemExit` with one line that names what is wrong if the
    configuration cannot be used.
    """
    use_threads()
    options.register(conf)
    log.register_options(conf)
    log.set_defaults(default_log_levels=[*log.get_default_log_levels(), *_QUIET])
    try:
        conf(
            list(argv),
            project=PROJECT,
            prog=prog,
            version=importlib.metadata.version(PROJECT),
        )
        _read_every_option(conf)
    except (cfg.Error, ValueError) as exc:
        said = _PLACE.sub(r"in \1", " ".join(str(exc).split()))
        raise SystemExit(f"{prog}: {said}") from None
    log.setup(conf, PROJECT)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_Harmless(handler.formatter or logging.Formatter()))
    return conf


class _Harmless(logging.Formatter):
    """What others wrote stays in the line that quotes it, and moves no cursor."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        quoted = copy.copy(record)
        quoted.msg, quoted.args = printable(record.getMessage()), ()
        # What ends lines now is a traceback.
        return "\n".join(printable(line) for line in self._inner.format(quoted).split("\n"))


def started() -> None:
    """Tell the garbage collector that what is loaded by now stays.

    To be called once, when the process is ready. A collection then looks at
    what was made since, and comes less often. Wiring 100 ports, 2 % of the time
    went into collections, and now and then one took a tenth of a second.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)


def _read_every_option(conf: cfg.ConfigOpts) -> None:
    """oslo.config looks at a value when it is first read; a bad one is to be found at start."""
    for section, opts in options.list_opts():
        for opt in opts:
            conf[section][opt.dest]
    options.check(conf)


class Ending:
    """Set when the process is asked to end, by SIGINT or SIGTERM.

    A second signal has its usual effect, for whoever does not want to wait.
    Made and waited for in the main thread, where Python runs its handlers.
    """

    def __init__(self) -> None:
        self._asked = False
        # A lock can miss a signal that comes just before the thread sleeps, or that another
        # thread was handed: it sleeps on. The byte that Python's own handler writes stays.
        self._woken, self._wake = socket.socketpair()
        for end in (self._woken, self._wake):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        self._previous = {
            number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)
        }

    def _ask(self, number: int, frame: FrameType | None) -> None:
        for each, handler in self._previous.items():
            signal.signal(each, handler)
        self._asked = True

    def is_asked(self) -> bool:
        return self._asked

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the signal, at most ``timeout`` seconds; whether it came."""
        ends = None if timeout is None else time.monotonic() + timeout
        while not self._asked:
            left = None if ends is None else max(0.0, ends - time.monotonic())
            if not select.select([self._woken], [], [], left)[0]:
                break
            self._woken.recv(4096)
        return self._asked
