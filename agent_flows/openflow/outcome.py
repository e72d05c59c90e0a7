"""Errors of ovs-ofctl as the outcome of a task."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from agent_flows.engine.task import TaskFailed
from agent_flows.errors import ErrorType
from agent_flows.openflow.ofctl import SwitchError, Timeout
from agent_flows.report import TaskError


@contextlib.contextmanager
def switch_errors(refused: ErrorType | None = None) -> Iterator[None]:
    """Raises errors of ovs-ofctl as :class:`TaskFailed`, for the whole batch: none of them names a
    port, and running half of the batch would only repeat it.

    ``refused`` is the error's type, but for a timeout; None takes the one of the error itself.
    """
    try:
        yield
    except Timeout as exc:
        raise TaskFailed(exc.task_error, whole_batch=True) from exc
    except SwitchError as exc:
        error = replace(exc.task_error, type=refused or exc.type)
        raise TaskFailed(error, whole_batch=True) from exc
    except OSError as exc:
        message = f"ovs-ofctl could not be run: {exc.strerror or exc}"
        error = TaskError(refused or ErrorType.OS_ERROR, message)
        raise TaskFailed(error, whole_batch=True) from exc
