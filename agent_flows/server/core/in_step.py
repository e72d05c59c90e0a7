"""Whether agents have the desired state that the server has, by the digests of both."""

import dataclasses
import datetime

from sqlalchemy.orm import Session

from agent_flows.report import SyncState
from agent_flows.rpc.revisions import NOT_COMPARED, Revisions
from agent_flows.server.core import unknown
from agent_flows.server.core.casts import Casts, to_hosts
from agent_flows.server.core.directory import PortDirectory
from agent_flows.server.core.liveness import Rules
from agent_flows.server.core.models import Agent


def compare(row: Agent, theirs: str, ours: Revisions | None, now: datetime.datetime) -> None:
    """Note in the agent's locked row whether its digest is the server's, or since when not.

    The time starts again when the agent's digest changes: it learns, if not yet the newest.
    Ports that are to be reported are no difference here: the agent may have all that is desired.
    """
    if ours is None or theirs == NOT_COMPARED:
        row.desired = row.differs_since = None
        return
    started = row.differs_since
    if theirs == dataclasses.replace(ours, awaited=()).digest():
        row.differs_since = None
    elif started is None or row.desired != theirs or started > now:
        row.differs_since = now
    row.desired = theirs


def doubt(
    session: Session, directory: PortDirectory, row: Agent, rules: Rules, now: datetime.datetime
) -> Casts:
    """If the agent has had another desired state for as long as it may be silent, ports of its
    host that were IN_SYNC before that are SYNCING: they are to be reported again.

    Those proven since are not doubted if their reports named all that is desired; if not, they are
    SYNCING, too, but their agent is asked once.
    """
    since = row.differs_since
    if since is None or since > now - rules.down:
        return Casts()
    ports = directory.in_states(session, [row.host], [SyncState.IN_SYNC])
    asked = [port for port in ports if port.updated_at < since]
    doubted = asked if directory.reports_name_all_desired else ports
    unknown.await_reports(session, directory, doubted, now)
    return Casts(resyncs=to_hosts([row.host], {port.id for port in asked}))
