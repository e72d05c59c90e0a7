"""Why a port is not as it should be, and what to do: one line for people. Pure."""

import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from agent_flows.errors import ErrorType, remedy
from agent_flows.report import UNTRUE, SyncState
from agent_flows.server.core.failures import Failure

_UNTRUE = frozenset(source.value for source in UNTRUE)
# Errors about the agent: its current state is shown instead.
_OF_THE_AGENT = frozenset({ErrorType.AGENT_SILENT, ErrorType.AGENT_NEVER_SEEN})


@dataclass(frozen=True)
class Agent:
    """What is known of the agent of the port's host; ``troubles`` are lines by source."""

    alive: bool
    heard_at: datetime.datetime
    troubles: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Port:
    """``filtered``: its security groups decide what passes; ``grouped``: it has some."""

    id: str
    host: str | None
    sync_state: str
    admin_state_up: bool
    filtered: bool
    grouped: bool


def reason(port: Port, agent: Agent | None, failure: Failure | None) -> str | None:
    """Why the port does not work and what to do; None if it works."""
    return " ".join(_sentences(port, agent, failure)) or None


def _sentences(port: Port, agent: Agent | None, failure: Failure | None) -> Iterator[str]:
    if not port.admin_state_up:
        yield (
            "Administratively down: it passes nothing, and stays DOWN until "
            "admin_state_up is set to true."
        )
    if port.filtered and not port.grouped:
        yield (
            "No security group: lets nothing in, and lets out only what every port may send "
            "(as ARP and DHCP); give it a security group."
        )
    if port.host is None:
        yield "Bound to no host: set binding:host_id to the host where it is plugged in."
    elif agent is None:
        yield (
            f"No agent was ever seen on host {port.host}: start an agent there, or correct "
            "binding:host_id if the port is plugged in elsewhere."
        )
    elif not agent.alive:
        since = agent.heard_at.isoformat(timespec="seconds")
        yield (
            f"The agent of host {port.host} has been silent since {since}: start it. What it "
            "wired until then stays as it is; what was plugged or changed since then waits for it."
        )
    else:
        yield from _with_live_agent(port, port.host, agent, failure)


def _with_live_agent(port: Port, host: str, agent: Agent, failure: Failure | None) -> Iterator[str]:
    """A port whose agent is alive."""
    troubles = dict(agent.troubles)
    if port.sync_state == SyncState.IN_SYNC:
        # Only these are about what was proven already.
        troubles = {source: line for source, line in troubles.items() if source in _UNTRUE}
    for source, line in troubles.items():
        yield f"Host {host} is in trouble ({source}): {line.rstrip('.')}."
    if port.sync_state == SyncState.ABSENT:
        yield (
            f"Not plugged: the agent of host {host} found no interface for it; plug it in there, "
            f"with external_ids:iface-id={port.id}, or correct binding:host_id."
        )
    elif port.sync_state == SyncState.SYNCING:
        yield f"The agent of host {host} has not yet reported what it was asked for; wait."
    elif port.sync_state != SyncState.IN_SYNC and failure and failure.type not in _OF_THE_AGENT:
        message = failure.message.rstrip(".")
        to_do = remedy(failure.type)
        yield f"{failure.task} failed: {failure.type}: {message}. To do: {to_do}."
    elif port.sync_state == SyncState.UNKNOWN:
        yield f"The agent of host {host} is alive and has not reported yet; wait."
