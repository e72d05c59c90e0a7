"""Makes ports UNKNOWN, each with a FAILED task that has the reason.

Messages are read by the port's owner and do not name the host; the detail is
for operators and does.
"""

import dataclasses
import datetime
from collections.abc import Mapping, Sequence

from sqlalchemy.orm import Session

from agent_flows.errors import ErrorType
from agent_flows.report import SyncState, TaskError, Trouble
from agent_flows.server.core import history
from agent_flows.server.core.directory import PortDirectory
from agent_flows.server.core.gate import PortState

# The first trouble decides the type of the error.
_ERROR_OF = {Trouble.SWITCH: ErrorType.SWITCH_UNREACHABLE, Trouble.BRIDGE: ErrorType.BRIDGE_MISSING}


def never_seen(host: str) -> TaskError:
    return TaskError(
        ErrorType.AGENT_NEVER_SEEN,
        "no agent was ever seen on the host the port is bound to",
        f"no agent was ever seen on host {host}, or it was deleted from the API: start an "
        f"agent there that reports as {host}, or bind the port to a host that has one",
    )


def silent(host: str, since: datetime.datetime) -> TaskError:
    return TaskError(
        ErrorType.AGENT_SILENT,
        f"no heartbeat from the port's agent since {_shown(since)}",
        f"no heartbeat from the agent of host {host} since {_shown(since)}",
    )


def overdue(port: PortState, seconds: float, now: datetime.datetime) -> TaskError:
    since = _shown(port.sync_since or now)
    return TaskError(
        ErrorType.REPORT_OVERDUE,
        f"no report of revision {port.revision} from the port's agent within {seconds:g} s "
        f"of {since}",
        f"the agent of host {port.host} is alive, but did not report",
    )


def untrue(host: str, troubles: Mapping[Trouble, str]) -> TaskError:
    """``troubles`` are those that make every claim about the host's ports untrue."""
    source, line = next(iter(troubles.items()))
    return TaskError(
        _ERROR_OF[source],
        f"what was proven of the port no longer holds: {line}".replace(host, "its host"),
        f"trouble of host {host}: {source.value}: {line}",
    )


def give_up(
    session: Session,
    directory: PortDirectory,
    ports: Sequence[tuple[PortState, TaskError]],
    now: datetime.datetime,
) -> None:
    """These locked ports are UNKNOWN, each for its reason; their status stays."""
    if not ports:
        return
    history.add(session, [history.silence(port, reason, now) for port, reason in ports], now)
    directory.move(
        session,
        [
            dataclasses.replace(port, sync_state=SyncState.UNKNOWN, sync_since=now, updated_at=now)
            for port, _ in ports
        ],
    )


def await_reports(
    session: Session, directory: PortDirectory, ports: Sequence[PortState], now: datetime.datetime
) -> None:
    """These locked ports are SYNCING from now on: their agent is to report."""
    directory.move(
        session,
        [
            dataclasses.replace(port, sync_state=SyncState.SYNCING, sync_since=now, updated_at=now)
            for port in ports
        ],
    )


def _shown(moment: datetime.datetime) -> str:
    return moment.isoformat(timespec="seconds")
