"""Why a port is UNKNOWN, and making it that, with a FAILED task that says why.

Messages are read by whoever owns the port, who need not know on which host it
is; the detail is for operators and names the host.
"""

import dataclasses
import datetime
from collections.abc import Mapping, Sequence

from sqlalchemy.orm import Session

from agent_flows.errors import ErrorType
from agent_flows.report import SyncState, TaskError, Trouble
from agent_flows.server.core import history
from agent_flows.server.core.directory import KnownPort, PortDirectory

# The trouble that is named first names the error.
_ERROR_OF = {Trouble.SWITCH: ErrorType.SWITCH_UNREACHABLE, Trouble.BRIDGE: ErrorType.BRIDGE_MISSING}


def never_seen(host: str) -> TaskError:
    return TaskError(
        ErrorType.AGENT_NEVER_SEEN,
        "no agent was ever seen on the host the port is bound to",
        f"no agent was ever seen on host {host}, or what was known of it was deleted: start an "
        f"agent there that reports as {host}, or bind the port to a host that has one",
    )


def silent(host: str, since: datetime.datetime) -> TaskError:
    return TaskError(
        ErrorType.AGENT_SILENT,
        f"no sign of life from the port's agent since {_shown(since)}",
        f"no sign of life from the agent of host {host} since {_shown(since)}",
    )


def overdue(port: KnownPort, seconds: float, now: datetime.datetime) -> TaskError:
    since = _shown(port.syncing_since or now)
    return TaskError(
        ErrorType.REPORT_OVERDUE,
        f"no report of revision {port.state.revision} from the port's agent within {seconds:g} s "
        f"of {since}",
        f"the agent of host {port.state.host} lives, but did not report",
    )


def untrue(host: str, troubles: Mapping[Trouble, str]) -> TaskError:
    """``troubles`` are those with which nothing holds that was proven."""
    source, line = next(iter(troubles.items()))
    return TaskError(
        _ERROR_OF[source],
        f"what was proven of the port does not hold any more: {line}".replace(host, "its host"),
        f"trouble of host {host}: {source.value}: {line}",
    )


def give_up(
    session: Session,
    directory: PortDirectory,
    ports: Sequence[tuple[KnownPort, TaskError]],
    now: datetime.datetime,
) -> None:
    """These locked ports are UNKNOWN, each for its reason; their status stays."""
    if not ports:
        return
    ordinals = history.Ordinals(session, now)
    history.add(
        session,
        [
            history.Record(ordinals.next(), history.silence(port, reason, now))
            for port, reason in ports
        ],
    )
    directory.move(session, [_moved(port, SyncState.UNKNOWN, None, now) for port, _ in ports])


def wait_for(
    session: Session, directory: PortDirectory, ports: Sequence[KnownPort], now: datetime.datetime
) -> None:
    """A report of these locked ports is waited for, from now on."""
    directory.move(session, [_moved(port, SyncState.SYNCING, now, now) for port in ports])


def _moved(
    port: KnownPort,
    to: SyncState,
    syncing_since: datetime.datetime | None,
    now: datetime.datetime,
) -> KnownPort:
    return dataclasses.replace(
        port,
        state=dataclasses.replace(port.state, sync_state=to),
        syncing_since=syncing_since,
        updated_at=now,
    )


def _shown(moment: datetime.datetime) -> str:
    return moment.isoformat(timespec="seconds")
