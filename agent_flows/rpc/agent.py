"""The agent's side: the client that calls the server, and the endpoint of the server's casts."""

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import oslo_messaging
import pydantic
from oslo_log import log

from agent_flows.fairness import fair
from agent_flows.report import FlowReport
from agent_flows.rpc import codec, desired, transport
from agent_flows.rpc.answers import Held, Receipt
from agent_flows.rpc.desired import Known, Update
from agent_flows.rpc.identity import HostTaken
from agent_flows.rpc.refusals import Refusals
from agent_flows.rpc.revisions import ByIds, Revisions
from agent_flows.rpc.signing import Signer
from agent_flows.rpc.timing import Observe, Outcome, unobserved
from agent_flows.spec import DesiredState
from agent_flows.supervision import one_line
from agent_flows.tracing import NOTHING, UNTRACED, Traces
from agent_flows.validation import Invalid, parse

LOG = log.getLogger(__name__)

_HELD = pydantic.TypeAdapter(Held)
_RECEIPT = pydantic.TypeAdapter(Receipt)
_REVISIONS = pydantic.TypeAdapter(Revisions)
_MEMBERS: pydantic.TypeAdapter[dict[str, int]] = pydantic.TypeAdapter(ByIds)
# The version of the calls that a server of the first release does not have.
_SINCE = {"get_revisions": "1.1", "get_members": "1.1", "get_desired": "1.2"}
# Attempts to reach a message bus that is away. By default oslo.messaging tries without end, with
# pauses of up to 30 s; every caller here tries again itself, and sooner.
_RETRIES = 1
# A heartbeat that takes longer than this is late; the next one is sent instead.
_HEARTBEAT_SECONDS = 10.0
# After so many seconds a server of an older release may have been replaced by a newer one.
_OLD_SECONDS = 600.0


class ServerClient:
    """Calls from an agent to the server.

    Every method raises :class:`oslo_messaging.MessagingException` if the server
    does not answer in time or fails, and :class:`agent_flows.validation.Invalid`
    if its answer is invalid; try again later. ``signer`` signs every call.
    """

    def __init__(
        self,
        transport_: oslo_messaging.Transport,
        host: str,
        timeout: float,
        signer: Signer | None = None,
        *,
        observe: Observe = unobserved,
        traces: Traces = UNTRACED,
    ) -> None:
        self._traces = traces
        self._host = host
        self._signer = signer
        self._observe = observe
        self._client = oslo_messaging.get_rpc_client(
            transport_, transport.server_target(), timeout=timeout, retry=_RETRIES
        )
        # Until then the server counts as one of an older release, in seconds of the clock.
        self._old_until = 0.0
        self._timeouts = {"heartbeat": min(timeout, _HEARTBEAT_SECONDS)}
        self._timeout = timeout

    def report(self, reports: Sequence[FlowReport]) -> Receipt:
        """Send at most :data:`transport.MAX_REPORTS` reports."""
        wire = [codec.to_wire(report) for report in fair(reports)]
        with self._traces.sending(reports) as carried:
            return parse(_RECEIPT, self._call("report", carried, reports=wire))

    def get_ports(self, port_ids: Collection[str] | None = None) -> DesiredState:
        """The specs of this host's ports, or of those in ``port_ids``, and of their groups.

        A port that is not in the answer is not bound to this host. An invalid
        spec is refused alone; without an id it makes the answer invalid.
        """
        ids = None if port_ids is None else list(port_ids)
        return codec.state_from_wire(self._call("get_ports", port_ids=ids))

    def get_desired(self, port_ids: Collection[str], known: Known) -> Update:
        """The specs of those of ``port_ids`` that are bound to this host, and what it lacks of
        their groups and of those in ``known``; since version 1.2.

        Of an older server everything is read: without ``port_ids`` that of every port.
        """
        ids = list(port_ids)
        if time.monotonic() >= self._old_until:
            try:
                answer = self._call("get_desired", port_ids=ids, known=known.to_wire())
            except oslo_messaging.RemoteError as exc:
                if not _is_unknown(exc):
                    raise
                self._old_until = time.monotonic() + _OLD_SECONDS
                LOG.info("The server is of an older release: groups are read and reported by port")
            else:
                return desired.from_wire(answer)
        return desired.whole(self.get_ports(ids or None))

    def get_bound(self) -> Collection[str]:
        """The ids of the ports that are bound to this host."""
        try:
            return self.get_revisions().ports
        except oslo_messaging.RemoteError as exc:
            if not _is_unknown(exc):
                raise
            return self.get_ports().ports

    def heartbeat(self, state: Mapping[str, Any]) -> Held:
        """Send the agent's state; the highest sequence that the server has of this host, and the
        digest of what it desires of it."""
        held = parse(_HELD, self._call("heartbeat", state=dict(state)))
        if held.counted or self._signer is None:
            return held
        # After this host's clock was set, or its state directory was restored.
        self._signer.follow(held)
        return parse(_HELD, self._call("heartbeat", state=dict(state)))

    def get_revisions(self) -> Revisions:
        """What the server desires of this host, by revision; since version 1.1."""
        return parse(_REVISIONS, self._call("get_revisions"))

    def get_members(self, security_group: str) -> Mapping[str, int]:
        """A revision of each port in the security group that has an address; since version 1.1,
        and only inside Neutron."""
        return parse(_MEMBERS, self._call("get_members", security_group=security_group))

    def _call(self, method: str, carried: Mapping[str, object] = NOTHING, **kwargs: object) -> Any:
        """``carried`` is what the RPC context contains beside the signature."""
        began, outcome = time.monotonic(), Outcome.FAILED
        try:
            client = self._client.prepare(
                version=_SINCE.get(method, transport.FIRST),
                timeout=self._timeouts.get(method, self._timeout),
            )
            context = {} if self._signer is None else self._signer.context(method, kwargs)
            answer = client.call({**context, **carried}, method, host=self._host, **kwargs)
            outcome = Outcome.ANSWERED
            return answer
        except oslo_messaging.MessagingException as exc:
            if _is_refusal(exc):
                outcome = Outcome.REFUSED
            raise
        except Exception as exc:
            # A built-in exception raised in the server is raised here as itself
            # (oslo_messaging/_drivers/common.py, deserialize_remote_exception).
            first_line = str(exc).partition("\n")[0]
            raise oslo_messaging.RemoteError(type(exc).__name__, first_line) from exc
        finally:
            self._observe(method, outcome, time.monotonic() - began)


def _is_refusal(exc: oslo_messaging.MessagingException) -> bool:
    """Whether the server answered that it takes no such message, or none of this agent."""
    refusals = {Invalid.__name__, HostTaken.__name__}
    return isinstance(exc, oslo_messaging.RemoteError) and exc.exc_type in refusals


def _is_unknown(exc: oslo_messaging.RemoteError) -> bool:
    """Whether the server is of a release that does not have the call, as
    :mod:`agent_flows.rpc.dispatch` answers, or oslo.messaging itself."""
    refused = exc.exc_type == Invalid.__name__ and str(exc.value).startswith("call: must be one of")
    return refused or exc.exc_type == "UnsupportedVersion"


def host_taken(exc: BaseException) -> str | None:
    """The server's reason, if ``exc`` is its answer that another agent reports for the host."""
    if isinstance(exc, oslo_messaging.RemoteError) and exc.exc_type == HostTaken.__name__:
        return one_line(str(exc.value))
    return None


class Changes(Protocol):
    """Receives the server's casts; each method returns at once."""

    def ports_changed(self, port_ids: Collection[str]) -> None: ...

    def security_groups_changed(self, ids: Collection[str], change: Update | None) -> None:
        """``change`` is all that changed of them, if the cast carries it."""
        ...

    def resync(self, port_ids: Collection[str] | None) -> None: ...


class AgentEndpoint:
    """Validates the server's casts; an invalid one is refused, counted and logged."""

    target = oslo_messaging.Target(version=transport.VERSION)

    def __init__(self, changes: Changes, refusals: Refusals | None = None) -> None:
        self._changes = changes
        self.refusals = refusals or Refusals()

    def ports_changed(self, ctxt: Mapping[str, Any], port_ids: object) -> None:
        self._changes.ports_changed(self._ids("port_ids", port_ids))

    def security_groups_changed(self, ctxt: Mapping[str, Any], ids: object) -> None:
        self._changes.security_groups_changed(self._ids("ids", ids), self._change(ctxt))

    def resync(self, ctxt: Mapping[str, Any], port_ids: object = None) -> None:
        self._changes.resync(None if port_ids is None else self._ids("port_ids", port_ids))

    def _change(self, ctxt: Mapping[str, Any]) -> Update | None:
        """What the cast carries. The agent asks in place of an invalid one, which is counted."""
        raw = ctxt.get(transport.CHANGE)
        if raw is None:
            return None
        try:
            return desired.change_from_wire(raw)
        except Invalid as exc:
            self.refusals.add("the sender of a cast", [exc])
            return None

    def _ids(self, name: str, ids: object) -> list[str]:
        try:
            return transport.id_list(name, ids)
        except Invalid as exc:
            self.refusals.add("the sender of a cast", [exc])
            raise
