"""A simulated message bus, behind oslo.messaging: calls and casts may be lost, late or doubled."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import oslo_messaging
from oslo_config import cfg
from oslo_messaging.rpc.dispatcher import ExpectedException
from oslo_messaging.transport import RPCTransport

from agent_flows.rpc import transport as wire
from tests.simulation.steps import Clock, Crashed, Process

FATES = ("is lost", "is answered, and the answer is lost", "comes twice", "comes late")
"""What may become of a call, beside that it is answered."""


@dataclass(frozen=True)
class Message:
    """A call or a cast on its way."""

    target: oslo_messaging.Target
    ctxt: Mapping[str, Any]
    content: str

    @property
    def method(self) -> str:
        return str(json.loads(self.content)["method"])

    def __str__(self) -> str:
        return f"{self.method} to {self.target.server or 'the server'}"


class Incoming:
    """A message as oslo.messaging gives it to a dispatcher."""

    client_timeout = None

    def __init__(self, message: Message) -> None:
        self.ctxt = dict(message.ctxt)
        self.message = json.loads(message.content)


class Bus:
    """``call`` answers a call: one server takes it. ``late`` are calls whose callers have given up,
    ``casts`` those that are not delivered yet, in the order in which they were sent."""

    def __init__(self, call: Callable[[Message], Any], say: Callable[[str], None]) -> None:
        self.call = call
        self.say = say
        # By the name of the call: what becomes of the next ones.
        self.fates: dict[str, list[str]] = {}
        self.late: list[Message] = []
        self.casts: list[Message] = []
        # oslo.messaging registers its options there.
        self.conf = cfg.CONF

    def of(self, process: Process) -> RPCTransport:
        """The bus as this process uses it."""
        return RPCTransport(_Driver(self, process))

    def send(self, message: Message, process: Process) -> Any:
        with process.around(f"the call {message.method}"):
            fates = self.fates.get(message.method)
            fate = fates.pop(0) if fates else ""
            if fate:
                self.say(f"    the call {message} {fate}")
            if fate in ("comes twice", "comes late"):
                self.late.append(message)
            if fate in ("is lost", "comes late"):
                raise oslo_messaging.MessagingTimeout(f"{message} {fate}")
            answer = self.answer(message)
            if fate.endswith("lost"):
                raise oslo_messaging.MessagingTimeout(f"{message} {fate}")
            return answer

    def answer(self, message: Message) -> Any:
        """Raises what oslo.messaging raises in the caller."""
        try:
            return json.loads(json.dumps(self.call(message)))
        except ExpectedException as exc:
            raised = exc.exc_info[1]
            name, text = type(raised).__name__, str(raised)
            self.say(f"    the call {message} is refused: {name}")
            raise oslo_messaging.RemoteError(name, text) from None
        except Crashed:
            raise oslo_messaging.MessagingTimeout(f"{message}: the server ended") from None


class _Driver:
    def __init__(self, bus: Bus, process: Process) -> None:
        self.conf = bus.conf
        self._bus, self._process = bus, process

    def send(
        self,
        target: oslo_messaging.Target,
        ctxt: Mapping[str, Any],
        message: Mapping[str, Any],
        wait_for_reply: bool | None = None,
        **_: Any,
    ) -> Any:
        sent = Message(target, ctxt, json.dumps(message))
        if target.topic == wire.SERVER_TOPIC:
            return self._bus.send(sent, self._process)
        with self._process.around(f"the cast {sent}", free=False):
            self._bus.casts.append(sent)
        return None


@dataclass(frozen=True)
class Outside:
    """What all processes share."""

    bus: Bus
    clock: Clock
    say: Callable[[str], None]
