"""The server's side: the endpoint that agents call, and the client that casts to them."""

import contextlib
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import oslo_messaging
import pydantic

from agent_flows.report import FlowReport
from agent_flows.rpc import codec, transport
from agent_flows.rpc.answers import Held, Receipt, is_no_fault
from agent_flows.rpc.desired import Known, Update
from agent_flows.rpc.identity import Identity
from agent_flows.rpc.refusals import UNKNOWN, Refusals
from agent_flows.rpc.revisions import KEY, Revisions, digest_of
from agent_flows.rpc.signing import sender_of
from agent_flows.spec import Spec
from agent_flows.tracing import UNTRACED, Traces
from agent_flows.validation import Hostname, Invalid, parse

_HOST: pydantic.TypeAdapter[str] = pydantic.TypeAdapter(Hostname)
_KNOWN: pydantic.TypeAdapter[Known] = pydantic.TypeAdapter(Known)
_CAST_RETRIES = 2
_STATE_BYTES = 16 * 1024


class Consumer(Protocol):
    """Receives validated calls.

    An exception becomes an RPC error, and the agent tries again later; as
    :class:`agent_flows.rpc.identity.HostTaken`: another agent reports for the host.
    """

    def take_reports(
        self, host: str, reports: Sequence[FlowReport], agent: Identity | None = None
    ) -> Receipt: ...

    def get_ports(
        self, host: str, port_ids: Collection[str] | None, agent: Identity | None = None
    ) -> Sequence[Spec]: ...

    def get_desired(
        self, host: str, port_ids: Collection[str], known: Known, agent: Identity | None = None
    ) -> Update:
        """Specs of these ports, and what the host lacks of their groups and of those it knows;
        :class:`agent_flows.validation.Invalid` if its agent gets that from elsewhere."""
        ...

    def get_revisions(self, host: str, agent: Identity | None = None) -> Revisions:
        """What is desired of the host; :class:`agent_flows.validation.Invalid` if its agent gets
        that from elsewhere."""
        ...

    def get_members(
        self, host: str, security_group: str, agent: Identity | None = None
    ) -> Mapping[str, int]:
        """A revision of each member of the security group, by port; Invalid as above."""
        ...

    def take_heartbeat(
        self, host: str, state: Mapping[str, Any], agent: Identity | None = None
    ) -> Held:
        """Record the heartbeat; the highest sequence of the host, and the digest of what is
        desired of it. A digest in ``state`` is valid."""
        ...


class ServerEndpoint:
    """Validates the calls of agents and passes them to the consumer.

    What is invalid is counted in ``refusals``, logged within limits, and refused
    in the answer. ``clock`` gives microseconds since the epoch, as sequences are.
    """

    target = oslo_messaging.Target(version=transport.VERSION)

    def __init__(
        self,
        consumer: Consumer,
        refusals: Refusals | None = None,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
        *,
        traces: Traces = UNTRACED,
    ) -> None:
        self._consumer = consumer
        self._clock = clock
        self._traces = traces
        self.refusals = refusals or Refusals()

    def report(self, ctxt: Mapping[str, Any], host: object, reports: object) -> dict[str, Any]:
        try:
            with self._counting(host) as sender:
                batch = _bounded_list(reports)
                agent = sender_of(ctxt, "report", sender, {"reports": batch})
        except Invalid as exc:
            return {
                "accepted": [],
                "rejected": dict.fromkeys(_ids_of(reports), str(exc)),
                "refused": str(exc),
                "sequence": 0,
                "clock": self._clock(),
            }
        valid: list[FlowReport] = []
        refused: list[Invalid] = []
        rejected = {}
        for raw in batch:
            try:
                valid.append(_report_of(sender, raw))
            except Invalid as exc:
                refused.append(exc)
                rejected.update(dict.fromkeys(_ids_of([raw]), str(exc)))
        try:
            with self._traced(sender, ctxt):
                answer = self._consumer.take_reports(sender, valid, agent)
        except Invalid as exc:
            self.refusals.add(sender, [*refused, exc])
            raise
        refused += [
            Invalid("store", report_id, reason)
            for report_id, reason in answer.rejected.items()
            if not is_no_fault(reason)
        ]
        self.refusals.add(sender, refused)
        return {
            "accepted": list(answer.accepted),
            "rejected": {**rejected, **answer.rejected},
            "sequence": answer.sequence,
            "clock": self._clock(),
        }

    def _traced(self, sender: str, ctxt: Mapping[str, Any]) -> AbstractContextManager[None]:
        """An invalid context is counted and left out: the reports count nevertheless."""
        try:
            return self._traces.received(ctxt)
        except Invalid as exc:
            self.refusals.add(sender, [exc])
            return contextlib.nullcontext()

    def get_ports(
        self, ctxt: Mapping[str, Any], host: object, port_ids: object = None
    ) -> list[dict[str, Any]]:
        with self._counting(host) as sender:
            ids = None if port_ids is None else transport.id_list("port_ids", port_ids)
            agent = sender_of(ctxt, "get_ports", sender, {"port_ids": ids})
            found = self._consumer.get_ports(sender, ids, agent)
        return [codec.to_wire(item) for item in found]

    def get_desired(
        self, ctxt: Mapping[str, Any], host: object, port_ids: object, known: object
    ) -> dict[str, Any]:
        with self._counting(host) as sender:
            ids = transport.id_list("port_ids", port_ids)
            has = _known(known)
            agent = sender_of(ctxt, "get_desired", sender, {"port_ids": ids, "known": known})
            return self._consumer.get_desired(sender, ids, has, agent).to_wire()

    def heartbeat(self, ctxt: Mapping[str, Any], host: object, state: object) -> dict[str, Any]:
        with self._counting(host) as sender:
            valid = self._state(sender, state)
            agent = sender_of(ctxt, "heartbeat", sender, {"state": state})
            held = self._consumer.take_heartbeat(sender, valid, agent)
        return {
            "sequence": held.sequence,
            "clock": self._clock(),
            KEY: held.desired,
            "number": held.number,
            "counted": held.counted,
        }

    def get_revisions(self, ctxt: Mapping[str, Any], host: object) -> dict[str, Any]:
        with self._counting(host) as sender:
            agent = sender_of(ctxt, "get_revisions", sender, {})
            return self._consumer.get_revisions(sender, agent).to_wire()

    def get_members(
        self, ctxt: Mapping[str, Any], host: object, security_group: object
    ) -> dict[str, int]:
        with self._counting(host) as sender:
            [group] = transport.id_list("security_group", [security_group])
            agent = sender_of(ctxt, "get_members", sender, {"security_group": group})
            return dict(self._consumer.get_members(sender, group, agent))

    def ping(self, ctxt: Mapping[str, Any]) -> dict[str, Any]:
        """Shows that this server receives messages."""
        return {"clock": self._clock()}

    def _state(self, sender: str, raw: object) -> Mapping[str, Any]:
        """An invalid digest is counted and left out: the agent is alive nevertheless."""
        state = _bounded_state(raw)
        try:
            digest_of(state)
        except Invalid as exc:
            self.refusals.add(sender, [exc])
            return {name: value for name, value in state.items() if name != KEY}
        return state

    @contextlib.contextmanager
    def _counting(self, host: object) -> Iterator[str]:
        """The validated ``host``; counts the call if it is invalid."""
        sender = UNKNOWN
        try:
            try:
                sender = parse(_HOST, host)
            except Invalid as exc:
                raise Invalid("host", host, exc.reason) from None
            yield sender
        except Invalid as exc:
            self.refusals.add(sender, [exc])
            raise


class AgentClient:
    """Casts to the agent of a host; they only save time, none is needed for correctness.

    Every method raises :class:`oslo_messaging.MessagingException` if the bus
    cannot be reached, after a few attempts.
    """

    def __init__(self, transport_: oslo_messaging.Transport) -> None:
        self._client = oslo_messaging.get_rpc_client(
            transport_, transport.agent_target(), retry=_CAST_RETRIES
        )

    def ports_changed(self, host: str, port_ids: Collection[str]) -> None:
        self._cast(host, "ports_changed", port_ids=list(port_ids))

    def security_groups_changed(
        self, host: str, ids: Collection[str], change: Mapping[str, Any] | None = None
    ) -> None:
        """``change``: what changed of them, of :class:`agent_flows.rpc.desired.Change`."""
        context = {} if change is None else {transport.CHANGE: dict(change)}
        self._cast(host, "security_groups_changed", context, ids=list(ids))

    def resync(self, host: str, port_ids: Collection[str] | None = None) -> None:
        self._cast(host, "resync", port_ids=None if port_ids is None else list(port_ids))

    def _cast(
        self, host: str, method: str, context: Mapping[str, Any] | None = None, **kwargs: object
    ) -> None:
        self._client.prepare(server=host).cast(dict(context or {}), method, **kwargs)


def _known(raw: object) -> Known:
    if not isinstance(raw, Mapping) or _size("known", raw) > transport.MAX_BYTES:
        raise Invalid("known", raw, f"must be an object of at most {transport.MAX_BYTES} bytes")
    try:
        return parse(_KNOWN, raw)
    except Invalid as exc:
        raise Invalid(f"known.{exc.field}", exc.value, exc.reason) from None


def _bounded_list(reports: object) -> list[object]:
    if not isinstance(reports, list):
        raise Invalid("reports", reports, "must be a list")
    if len(reports) > transport.MAX_REPORTS:
        raise Invalid("reports", len(reports), f"at most {transport.MAX_REPORTS} in a message")
    size = _size("reports", reports)
    if size > transport.MAX_BYTES:
        raise Invalid("reports", size, f"at most {transport.MAX_BYTES} bytes in a message")
    return reports


def _bounded_state(state: object) -> Mapping[str, Any]:
    if not isinstance(state, Mapping) or _size("state", state) > _STATE_BYTES:
        raise Invalid("state", state, f"must be an object of at most {_STATE_BYTES} bytes")
    return state


def _size(name: str, value: object) -> int:
    try:
        return len(json.dumps(value))
    except (TypeError, ValueError, RecursionError) as exc:
        raise Invalid(name, type(exc).__name__, "must be JSON") from None


def _report_of(host: str, raw: object) -> FlowReport:
    report = codec.report_from_wire(raw)
    if report.host != host:
        raise Invalid("host", report.host, f"{host} may only report for itself")
    return report


def _ids_of(reports: object) -> list[str]:
    items = reports if isinstance(reports, list) else []
    return [
        item["id"][:64]
        for item in items[: transport.MAX_REPORTS]
        if isinstance(item, Mapping) and isinstance(item.get("id"), str)
    ]
