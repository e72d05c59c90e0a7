"""What another program changed of a proven port's wiring. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from agent_flows.engine.drift import Drift
from agent_flows.errors import ErrorType
from agent_flows.l2 import interfaces
from agent_flows.l2.bindings import Binding
from agent_flows.l2.interfaces import Interface
from agent_flows.openflow import wiring
from agent_flows.report import Step, TaskError


@dataclass(frozen=True)
class Seen:
    """What OVSDB, the kernel and the switch have of a port.

    ``link`` is what is wrong with its link, if it has one that we raise. ``forbidden``:
    what the port's OpenFlow configuration forbids, whatever the flows are.
    """

    interface: Interface
    tag: int | None
    other_config: Mapping[str, str]
    link: TaskError | None = None
    forbidden: Collection[str] = ()


def of_port(applied: Interface, binding: Binding, seen: Seen | None) -> Drift | None:
    """The difference between a port as its last flow left it and as it is now.

    A port that was unplugged, or plugged again (with other rows in OVSDB), or that a
    second interface claims has no drift: its next flow wires it as it is now.
    """
    if seen is None or _was_replugged(applied, seen.interface):
        return None
    found = [*_of_interface(applied, seen.interface), *_of_binding(binding, seen)]
    if seen.link is not None:
        found.append(seen.link)
    if seen.forbidden:
        message = f"OpenFlow port {binding.name} must not {' or '.join(seen.forbidden)} packets"
        found.append(TaskError(ErrorType.DRIFT, message))
    if not found:
        return None
    message = "; ".join(each.message for each in found)
    detail = "\n".join(each.detail for each in found if each.detail)
    return Drift(Step.L2, TaskError(ErrorType.DRIFT, message, detail))


def _was_replugged(before: Interface, now: Interface) -> bool:
    return bool(now.claimants) or (now.row, now.port_row) != (before.row, before.port_row)


def _of_interface(before: Interface, now: Interface) -> list[TaskError]:
    errors = list(interfaces.missing([now.port_id], {now.port_id: now}).values())
    if not errors and now.ofport != before.ofport:
        message = f"the ofport of {now.name} is {now.ofport} instead of {before.ofport}"
        errors.append(TaskError(ErrorType.INTERFACE_CHANGED, message))
    return errors


def _of_binding(binding: Binding, seen: Seen) -> list[TaskError]:
    errors = []
    if seen.tag != binding.vlan:
        errors.append(wiring.wrong_tag(binding.name, seen.tag, binding.vlan))
    wanted = binding.columns["other_config"]
    differing = sorted(key for key in wanted if seen.other_config.get(key) != wanted[key])
    if differing:
        message = f"other_config of {binding.name} was changed: {', '.join(differing)}"
        values = "\n".join(
            f"{key}: {seen.other_config.get(key, '(none)')} instead of {wanted[key]}"
            for key in differing
        )
        errors.append(TaskError(ErrorType.WRONG_TAG, message, values))
    return errors
