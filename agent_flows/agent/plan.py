"""What to do with each port: a pure decision from what is asked, present, desired and proven."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agent_flows.engine.port_queue import Request
from agent_flows.l2.interfaces import Interface
from agent_flows.report import FlowName
from agent_flows.spec import DesiredState, PortSpec


@dataclass(frozen=True)
class Wired:
    """A port as the last flow left it.

    ``proven`` is False if that flow failed: then nothing can be taken for
    granted but that the port must be unwired one day. A refresh that failed
    leaves the wiring proven and ``security_group_revisions`` None: the port is
    to be refreshed again, and no more than that.
    """

    spec: PortSpec
    interface: Interface | None
    security_group_revisions: Mapping[str, int] | None
    proven: bool


# The order in which a batch's flows run: ports are closed before others open.
ORDER = (FlowName.UNWIRE, FlowName.REFRESH, FlowName.WIRE, FlowName.RESYNC)


def early(
    requests: Iterable[Request], present: Mapping[str, Interface], wired: Mapping[str, Wired]
) -> frozenset[str]:
    """Ports that are to be looked at once more before there is anything to say of them.

    ovs-vswitchd opens a new interface within milliseconds, and its ofport comes
    as a change of its own; a port that the server names may be about to be
    plugged. Only if it is still missing at the next try there is something to
    report.
    """
    return frozenset(
        r.port_id
        for r in requests
        if r.attempt == 1
        and not r.looked
        and (
            not present[r.port_id].is_settled
            if r.port_id in present
            else r.asked and not r.forced and r.port_id not in wired
        )
    )


def attempt(request: Request, present: Mapping[str, Interface], wired: Mapping[str, Wired]) -> int:
    """Which attempt at the port this is: a look that came too :func:`early` was none."""
    looked = early([dataclasses.replace(request, attempt=1)], present, wired)
    return max(1, request.attempt - len(looked))


def concerns(
    requests: Iterable[Request], present: Mapping[str, Interface], wired: Mapping[str, Wired]
) -> list[Request]:
    """The requests that anything can come of: a port neither plugged nor ever wired is left alone.

    If the request is forced, or the server's, its absence is to be reported.
    """
    return [
        r for r in requests if r.forced or r.asked or r.port_id in present or r.port_id in wired
    ]


def plan(
    requests: Iterable[Request],
    present: Mapping[str, Interface],
    desired: DesiredState,
    wired: Mapping[str, Wired],
    absent: Mapping[str, int],
) -> Mapping[FlowName, tuple[str, ...]]:
    """Ports by the flow they need; a port in none needs nothing.

    ``absent`` are the revisions at which ports were reported as not here.
    """
    flows: dict[FlowName, list[str]] = {flow: [] for flow in ORDER}
    for request in requests:
        port_id = request.port_id
        flow = _flow(
            request, present.get(port_id), desired, wired.get(port_id), absent.get(port_id)
        )
        if flow is not None:
            flows[flow].append(port_id)
    return {flow: tuple(ports) for flow, ports in flows.items() if ports}


def _flow(
    request: Request,
    interface: Interface | None,
    desired: DesiredState,
    last: Wired | None,
    absent: int | None,
) -> FlowName | None:
    spec = desired.ports.get(request.port_id)
    if spec is None or interface is None:
        unreported = request.asked and spec is not None and spec.revision != absent
        needed = last is not None or request.forced or unreported
        return FlowName.UNWIRE if needed else None
    if request.forced:
        return FlowName.RESYNC
    if last is None or not last.proven or last.spec != spec or last.interface != interface:
        return FlowName.WIRE
    if last.security_group_revisions != revisions(spec, desired):
        return FlowName.REFRESH
    return None


def revisions(spec: PortSpec, desired: DesiredState) -> dict[str, int]:
    """The revisions of the port's groups, those with an invalid spec included. One that is missing
    from ``desired`` is left out: the flow fails and says so, and no other port is held up."""
    known = (
        (group, desired.security_groups.get(group) or desired.refused.get(group))
        for group in spec.security_groups
    )
    return {group: each.revision for group, each in known if each is not None}
