"""oslo.service uses threads, where it has them and where eventlet does not rule the process."""

import subprocess
import sys

import pytest

# A stand-in for eventlet: what a process looks like whose threads are green.
_PATCHED = """\
import sys, types
sys.modules["eventlet.patcher"] = types.SimpleNamespace(is_monkey_patched=lambda part: True)
"""
# oslo.service 4.1 has no hook.
_OLD = """\
from oslo_service import backend
vars(backend).pop("register_backend_default_hook", None)
"""
_PREFER = """\
from oslo_service import backend
from agent_flows import threads
asked = []
backend.init_backend = asked.append
threads.prefer()
try:
    backend.get_backend()
except AssertionError:
    pass
print(*(each.name for each in asked))
"""
_USE = """\
from agent_flows import threads
threads.use("agent-flows-agent")
print("runs")
"""


def _run(code: str) -> tuple[int, str]:
    argv = [sys.executable, "-W", "ignore", "-c", code]
    ran = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    return ran.returncode, (ran.stdout + ran.stderr).strip()


def _has_threads() -> bool:
    return _run("from oslo_service.backend import register_backend_default_hook")[0] == 0


@pytest.mark.parametrize(
    ("before", "taken"), [("", "THREADING"), (_PATCHED, "EVENTLET"), (_OLD, "EVENTLET")]
)
def test_the_backend_that_is_taken_unless_another_was_chosen(before: str, taken: str) -> None:
    # Without threads of its own, oslo.service 4.1 takes eventlet whatever is preferred.
    assert _run(before + _PREFER) == (0, taken if _has_threads() else "EVENTLET")


def test_a_program_without_threads_ends_with_one_line() -> None:
    code, printed = _run(_OLD + _USE)
    assert code == 1
    assert printed.startswith("agent-flows-agent: needs oslo.service 4.2 or newer")
    assert "\n" not in printed
