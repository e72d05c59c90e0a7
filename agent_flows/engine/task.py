"""The base of all tasks, and the errors by which a task blames ports."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from taskflow import task

from agent_flows.report import Step, TaskError


class PortErrors(Exception):
    """Blame: raised by a task that knows which ports failed, and why each did.

    The runner reports these ports as FAILED, lets TaskFlow revert the batch
    and runs the other ports again as one batch.
    """

    def __init__(self, errors: Mapping[str, TaskError]) -> None:
        self.errors = dict(errors)
        first = next(iter(self.errors.items()), None)
        shown = f"{first[0]}: {first[1].message}" if first else "none"
        super().__init__(f"{len(self.errors)} of the batch's ports failed, first {shown}")


class TaskFailed(Exception):
    """A task failed and cannot tell which port is at fault.

    The runner splits the batch in half until the port at fault is alone;
    with ``whole_batch`` (the tool cannot be reached, it ran out of time) a
    split would only repeat the failure, so every port of the batch fails.
    """

    def __init__(self, error: TaskError, *, whole_batch: bool = False) -> None:
        self.error = error
        self.whole_batch = whole_batch
        super().__init__(f"{error.type}: {error.message}")


def raise_for(port_ids: Iterable[str], found: Mapping[str, object]) -> None:
    """Raises :class:`PortErrors` if what was ``found`` about one of these ports is an error."""
    errors = {id_: error for id_ in port_ids if isinstance(error := found.get(id_), TaskError)}
    if errors:
        raise PortErrors(errors)


@dataclass(frozen=True)
class Skipped:
    """Result of a task that did not apply to some ports: port id to reason."""

    ports: Mapping[str, str]


class FlowTask(task.Task):  # type: ignore[misc]  # TaskFlow publishes no types
    """Base of all tasks: one thing done for a whole batch of ports.

    A subclass names its inputs in the signature of ``execute`` (every flow
    provides ``port_ids``, the ports of the batch being run) and appears in the
    report under ``name_``, in ``step``.
    """

    name_: ClassVar[str]
    step: ClassVar[Step]

    def __init__(self) -> None:
        super().__init__(name=self.name_)
