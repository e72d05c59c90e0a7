"""What the page shows of a cloud: Neutron's API, with the rights of one user."""

import datetime
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from agent_flows.cli.failure import CommandFailed, ExitCode
from agent_flows.cli.osc import NeutronClient
from agent_flows.page.source import Found, View
from agent_flows.report import SyncState
from agent_flows.validation import Invalid

_STATES = frozenset(state.value for state in SyncState)
_LONG = datetime.timedelta(seconds=75)
"""As long as Neutron's ``agent_down_time`` an agent may have another desired state: it asks for
what differs at its next heartbeats."""
_MOST_COUNTED = 2000

# What Neutron does not have, or does not show to every user.
_ABSENT: Mapping[str, View] = {
    "ports": {
        "binding:host_id": None,
        "reason": None,
        # The owner of a network sees all of its ports, but not these of other projects' ports.
        "sync_reason": None,
        "sync_revision": None,
        "sync_since": None,
        "sync_state": "",
    },
    "tasks": {"host": None},
}
_ONLY_OURS = frozenset({"reason"})


class NeutronSource:
    """For one page: what was read of the agents is used again."""

    def __init__(self, client: NeutronClient) -> None:
        self._client = client

    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """As the agents' resources have them, with the ports in trouble of hosts without an agent.

        A user who may read no agent sees ports of one project: these are counted in their list, at
        most 2,000 in each state.
        """
        found: dict[str, dict[str, int]] = {
            each["host"]: dict(each["ports"]) for each in self._agents
        }
        if not found:
            return {"": self._counted()}
        others = (each for each in self._problems if each["host"] not in found)
        for each in list(others):
            of_host = found.setdefault(each["host"], {})
            for state, number in each["ports"].items():
                of_host[state] = of_host.get(state, 0) + number
        return found

    def troubled(self) -> Mapping[str, str]:
        lines = {agent["host"]: "; ".join(_troubles(agent)) for agent in self._agents}
        return {host: line for host, line in lines.items() if line}

    def find(self, plural: str, params: Mapping[str, Sequence[str]]) -> Found:
        for state in params.get("sync_state", ()):
            if state not in _STATES:
                reason = f"must be one of {', '.join(sorted(_STATES))}"
                raise Invalid("sync_state", state, reason)
        wanted: dict[str, object] = {**params, "fields": _fields(params.get("fields", ()))}
        limit = int(params["limit"][-1])
        found = self._client.find(plural, wanted, limit + 1)
        marker = found[limit - 1]["id"] if len(found) > limit else None
        return Found([_whole(plural, each) for each in found[:limit]], marker)

    def one(self, plural: str, resource_id: str) -> View | None:
        try:
            return _whole(plural, self._client.show(plural, resource_id))
        except CommandFailed as exc:
            if exc.exit_code is ExitCode.NOT_FOUND:
                return None
            raise

    @cached_property
    def _agents(self) -> Sequence[View]:
        return self._client.find("agents", {})

    @cached_property
    def _problems(self) -> Sequence[View]:
        return self._client.find("problems", {})

    def _counted(self) -> dict[str, int]:
        def number(state: str) -> int:
            return len(
                self._client.find("ports", {"sync_state": state, "fields": "id"}, _MOST_COUNTED)
            )

        return {state: number(state) for state in sorted(_STATES)}


def _whole(plural: str, view: View) -> View:
    """The resource with every field that the pages read."""
    whole = {**_ABSENT.get(plural, {}), **view}
    if plural == "tasks" and whole.get("error") is not None:
        whole["error"] = {"message": "", "detail": "", **whole["error"]}
    return whole


def _fields(named: Sequence[str]) -> list[str]:
    """As Neutron takes them: a parameter for each."""
    return [name for each in named for name in each.split(",") if name not in _ONLY_OURS]


def _troubles(agent: View) -> list[str]:
    """What keeps the agent from its work, as ``/healthz`` of our own server has it."""
    found = [] if agent["alive"] else [f"no heartbeat since {agent['heartbeat_at']}"]
    troubles: Mapping[str, Any] = agent["state"].get("troubles") or {}
    found += [f"{source}: {line}" for source, line in troubles.items()]
    if agent["conflict"]:
        found.append("another agent reports as this host")
    since = (agent["desired"] or {}).get("differs_since")
    if since and _time(agent["heartbeat_at"]) - _time(since) > _LONG:
        found.append(f"its agent has another desired state than the server since {since}")
    if off := agent["gating_off"]:
        found.append(f"gating is off until {off['until']}: {off['reason']}")
    return found


def _time(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)
