"""Between the bus and an endpoint: an invalid message is refused with one line.

oslo.messaging would log a traceback for each and send it to the caller, with
the file names of this machine.
"""

import inspect
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import oslo_messaging
from oslo_log import log
from oslo_messaging.rpc import dispatcher
from oslo_messaging.rpc.server import RPCServer

from agent_flows.rpc.identity import HostTaken
from agent_flows.rpc.refusals import UNKNOWN, Lines, Refusals
from agent_flows.rpc.timing import Observe, Outcome, unobserved
from agent_flows.supervision import described
from agent_flows.validation import Invalid

LOG = log.getLogger(__name__)


class Failed(Exception):
    """The other side failed; its log has the reason. Try again later."""


class Endpoint(Protocol):
    """Its public methods can be called; each counts what it refuses."""

    target: oslo_messaging.Target
    refusals: Refusals


def listener(
    transport: oslo_messaging.Transport,
    target: oslo_messaging.Target,
    endpoint: Endpoint,
    observe: Observe = unobserved,
) -> oslo_messaging.MessageHandlingServer:
    """Passes messages for ``target`` to the public methods of ``endpoint``."""
    logging.getLogger("oslo.messaging._drivers.impl_rabbit").addFilter(_unreadable)
    return RPCServer(transport, target, dispatcher_of(endpoint, observe))


def dispatcher_of(endpoint: Endpoint, observe: Observe = unobserved) -> dispatcher.RPCDispatcher:
    """Passes one incoming message of oslo.messaging to ``endpoint``, in the caller's thread."""
    return _Dispatcher(endpoint, observe)


class _Unreadable:
    """One line for each message that the driver cannot read, within the limit of :class:`Lines`."""

    def __init__(self) -> None:
        self._lines = Lines()

    def __call__(self, record: logging.LogRecord) -> bool:
        if not str(record.msg).startswith("Failed to process message"):
            return True
        record.exc_info = record.exc_text = None
        return self._lines.may_follow()


_unreadable = _Unreadable()


class _Dispatcher(dispatcher.RPCDispatcher):  # type: ignore[misc]
    def __init__(self, endpoint: Endpoint, observe: Observe) -> None:
        super().__init__([endpoint], None, dispatcher.DefaultRPCAccessPolicy)
        self._observe = observe
        self._endpoint = endpoint
        self._last = ""
        self._methods: Mapping[str, inspect.Signature] = {
            name: inspect.signature(method)
            for name, method in inspect.getmembers(endpoint, inspect.ismethod)
            if not name.startswith("_")
        }

    def dispatch(self, incoming: Any) -> Any:
        began = time.monotonic()
        try:
            self._check(incoming)
        except Invalid as exc:
            self._endpoint.refusals.add("an unknown sender", [exc])
            self._observe(UNKNOWN, Outcome.REFUSED, time.monotonic() - began)
            raise _answered(exc) from None
        method, outcome = incoming.message["method"], Outcome.FAILED
        try:
            answer = super().dispatch(incoming)
            outcome = Outcome.ANSWERED
            return answer
        except (Invalid, HostTaken) as exc:
            # The endpoint has counted and logged it.
            outcome = Outcome.REFUSED
            raise _answered(exc) from None
        # The only handler between the bus and the endpoint; every error becomes an answer.
        except Exception as exc:
            line = f"{method} failed: {described(exc)}"
            # A database that does not answer would fill the log with tracebacks.
            LOG.error("%s", line, exc_info=line != self._last)
            self._last = line
            raise _answered(Failed(f"{type(exc).__name__} in {method}")) from None
        finally:
            self._observe(method, outcome, time.monotonic() - began)

    def _check(self, incoming: Any) -> None:
        """Raise :class:`Invalid` unless the message is a call of one of the endpoint's methods."""
        message = incoming.message
        if not isinstance(message, Mapping):
            raise Invalid("message", message, "must be an object")
        method, args = message.get("method"), message.get("args", {})
        signature = self._methods.get(method) if isinstance(method, str) else None
        if signature is None:
            raise Invalid("call", method, f"must be one of {', '.join(sorted(self._methods))}")
        if not isinstance(args, Mapping):
            raise Invalid("call", args, "the arguments must be an object")
        try:
            signature.bind(incoming.ctxt, **args)
        except TypeError as exc:
            raise Invalid("call", method, f"wrong arguments: {exc}"[:200]) from None
        version = message.get("version", "1.0")
        if message.get("namespace") is not None or not _is_compatible(
            self._endpoint.target, version
        ):
            raise Invalid("version", version, f"must be version {self._endpoint.target.version}")
        # oslo.messaging starts a thread that calculates with it.
        timeout = incoming.client_timeout
        if not isinstance(timeout, int | float) or isinstance(timeout, bool):
            incoming.client_timeout = None


def _is_compatible(target: oslo_messaging.Target, version: object) -> bool:
    compatible: Callable[[Any, Any], bool] = dispatcher.RPCDispatcher._is_compatible
    try:
        return compatible(target, version)
    except (ValueError, TypeError, AttributeError):
        return False


def _answered(exc: Exception) -> dispatcher.ExpectedException:
    """``exc`` as an answer without its causes and traceback."""
    exc.__cause__ = exc.__context__ = None
    answer = dispatcher.ExpectedException()
    answer.exc_info = (type(exc), exc, None)
    return answer
