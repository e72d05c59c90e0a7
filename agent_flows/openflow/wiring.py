"""What can be wrong with a port's interface and its tag, on every kind of host. Pure."""

from collections.abc import Sequence

from agent_flows.errors import ErrorType
from agent_flows.report import TaskError

NO_INTERFACE = TaskError(
    ErrorType.INTERFACE_NOT_FOUND,
    "no interface on the integration bridge names this port as its iface-id",
)


def no_ofport(interface: str) -> TaskError:
    return TaskError(ErrorType.NO_OFPORT, f"Open vSwitch has given interface {interface} no ofport")


def interface_changed(before: object, now: object) -> TaskError:
    return TaskError(
        ErrorType.INTERFACE_CHANGED,
        "the port's interface changed while its flow ran",
        f"was {before}, is {now}",
    )


def error(
    before: object, now: object, name: str, tag: int | None, allowed: Sequence[int]
) -> TaskError | None:
    """What is wrong with a port's wiring after its flow: its interface is not the one ``before``
    the flow, or the tag of its interface ``name`` is none of those ``allowed``."""
    if now != before:
        return interface_changed(before, now)
    if tag not in allowed:
        return wrong_tag(name, tag, allowed[0])
    return None


def wrong_tag(name: str, tag: int | None, vlan: int) -> TaskError:
    return TaskError(
        ErrorType.WRONG_TAG, f"the tag of {name} is {tag or 'not set'} instead of {vlan}"
    )
