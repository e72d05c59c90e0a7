"""The pages: each reads a source, a bounded number of resources at a time, and returns HTML."""

import datetime
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from agent_flows.page import render, timeline
from agent_flows.page.source import Found, Source, View
from agent_flows.report import FlowName, SyncState, TaskState

OUT_OF_SYNC = (SyncState.OUT_OF_SYNC.value, SyncState.UNKNOWN.value)
_NOT_IN_SYNC = (*OUT_OF_SYNC, SyncState.SYNCING.value, SyncState.ABSENT.value)
# The order in which states are shown: what needs a person first.
_STATES = (*_NOT_IN_SYNC, SyncState.IN_SYNC.value)

_FEW, _PAGE = 20, 100
# The slowest of these are shown. To sort all tasks of a host would take the longer the more there
# are: a host may have a hundred thousand.
_RECENT, _SLOWEST = 300, 10
# As many tasks as the attempts have that are kept of a port, several times over.
_TASKS = 300

_PORT_FIELDS = "id,name,binding:host_id,status,sync_state,sync_since,sync_reason,reason,updated_at"
# As a claim from outside may be: ten years in seconds.
_LONGEST = 10 * 365 * 86400.0
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Missing(Exception):
    """There is no such resource; the message names it."""


def overview(source: Source, now: datetime.datetime) -> str:
    """How many ports are in which state, and what is not in sync, by cause, host and port."""
    counts, troubled = source.counts(), source.troubled()
    totals = Counter[str]()
    for of_host in counts.values():
        totals.update(of_host)
    behind = {host: _sum(of_host, _NOT_IN_SYNC) for host, of_host in counts.items()}
    hosts = sorted((host for host in counts if behind[host]), key=lambda host: -behind[host])
    return render.page(
        "overview.html",
        now,
        states=_STATES,
        totals=totals,
        total=sum(totals.values()),
        out=_sum(totals, OUT_OF_SYNC),
        not_in_sync=_sum(totals, _NOT_IN_SYNC),
        problems=source.find("problems", {"limit": [str(_FEW)]}),
        ports=_out_of_sync(source, totals),
        hosts=[(host, counts[host]) for host in hosts[:_FEW]],
        more_hosts=len(hosts[_FEW:]),
        troubled=dict(list(troubled.items())[:_FEW]),
        more_troubled=max(len(troubled) - _FEW, 0),
    )


def _out_of_sync(source: Source, totals: Mapping[str, int]) -> Found:
    """The first of the ports that are not in sync: those that failed, or else those on the way."""
    for states in (OUT_OF_SYNC, _NOT_IN_SYNC):
        # To look through all ports for what is not there takes longest.
        if _sum(totals, states):
            return source.find("ports", _params(states, limit=_FEW))
    return Found([], None)


def ports(source: Source, asked: Mapping[str, str], now: datetime.datetime) -> str:
    """A page of the ports that meet the filters of a form: ``sync_state``, ``host``, ``name``.

    Raises :class:`agent_flows.validation.Invalid` if a filter cannot be.
    """
    chosen = asked.get("sync_state", "")
    states = _NOT_IN_SYNC if chosen == "NOT_IN_SYNC" else (chosen,) if chosen else ()
    params = _params(states, limit=_PAGE)
    for name, parameter in (("host", "binding:host_id"), ("name", "name"), ("marker", "marker")):
        if asked.get(name):
            params[parameter] = [asked[name]]
    found = source.find("ports", params)
    return render.page("ports.html", now, states=_STATES, asked=asked, ports=found)


def port_named(asked: Mapping[str, str]) -> str | None:
    """The id that was typed where a name is asked for."""
    typed = asked.get("name", "").strip().lower()
    return typed if _UUID.fullmatch(typed) else None


def port(source: Source, port_id: str, now: datetime.datetime) -> str:
    """One port, with the timeline of each attempt; raises :class:`Missing`."""
    shown = source.one("ports", port_id)
    if shown is None:
        raise Missing(f"there is no port {port_id}")
    tasks = source.find("tasks", {"resource_id": [port_id], "limit": [str(_TASKS)]})
    attempts = timeline.attempts(tasks.items)
    if tasks.marker is not None:
        # The last one may be cut off.
        attempts = attempts[:-1]
    name = shown["binding:host_id"]
    agent = source.one("agents", name) if name else None
    return render.page(
        "port.html",
        now,
        port=shown,
        attempts=attempts,
        out=OUT_OF_SYNC,
        gating_off=agent and agent["gating_off"],
    )


def hosts(source: Source, asked: Mapping[str, str], now: datetime.datetime) -> str:
    """A page of the agents."""
    params = {"limit": [str(_PAGE)]}
    if asked.get("marker"):
        params["marker"] = [asked["marker"]]
    found = source.find("agents", params)
    return render.page("hosts.html", now, states=_STATES, asked=asked, agents=found)


def host(source: Source, name: str, now: datetime.datetime) -> str:
    """The agent of one host, what is out of sync there, and what its flows did."""
    agent = source.one("agents", name)
    counts = source.counts().get(name, {}) if agent is None else agent["ports"]
    if agent is None and not counts:
        raise Missing(f"there is no agent and no port of host {name}")
    return render.page(
        "host.html",
        now,
        name=name,
        agent=agent,
        states=_STATES,
        counts=counts,
        problems=source.find("problems", {"host": [name], "limit": [str(_FEW)]}),
        failed=_tasks(source, name, task_state=TaskState.FAILED.value),
        drifts=_tasks(source, name, flow=FlowName.AUDIT.value),
        slowest=_slowest(source, name),
        recent=_RECENT,
        audited_at=_audited_at(agent),
    )


def _tasks(source: Source, host: str, **params: str) -> Sequence[View]:
    wanted = {name: [value] for name, value in params.items()}
    return source.find("tasks", {"host": [host], "limit": ["10"], **wanted}).items


def _slowest(source: Source, host: str) -> Sequence[View]:
    """The tasks that took longest, of the last ones."""
    recent = source.find("tasks", {"host": [host], "limit": [str(_RECENT)]}).items
    ran = [task for task in recent if task["duration"] is not None]
    return sorted(ran, key=lambda task: -task["duration"])[:_SLOWEST]


def _audited_at(agent: View | None) -> str | None:
    """When the agent last compared the whole switch with what was proven, by the server's clock."""
    age = None if agent is None else agent["state"].get("audit_age")
    if agent is None or age is None:
        return None
    # The number is the agent's own, and may be any.
    passed = datetime.timedelta(seconds=min(max(age, 0.0), _LONGEST))
    return (datetime.datetime.fromisoformat(agent["heartbeat_at"]) - passed).isoformat()


def problem(title: str, message: str, now: datetime.datetime) -> str:
    """What is shown in place of a page that cannot be."""
    return render.page("problem.html", now, title=title, message=message)


def _params(states: Sequence[str], limit: int) -> dict[str, Sequence[str]]:
    params: dict[str, Sequence[str]] = {"limit": [str(limit)], "fields": [_PORT_FIELDS]}
    return {**params, "sync_state": states} if states else params


def _sum(counts: Mapping[str, int], states: Sequence[str]) -> int:
    return sum(counts.get(state, 0) for state in states)
