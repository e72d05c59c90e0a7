"""A call of ovs-ofctl ends within its time limit."""

import pathlib

import pytest

from agent_flows.openflow.ofctl import Ofctl, Ran, Timeout, ToolMissing, execute
from lab.process import wait_until


def sh(script: str, *, stdin: str = "", limit: float = 30.0) -> Ran:
    return execute(["sh", "-c", script], stdin, limit)


def test_result_has_output_and_exit_code() -> None:
    assert sh("cat; echo no >&2; exit 3", stdin="yes") == Ran("yes", "no\n", 3)


@pytest.mark.parametrize(
    "script",
    [
        "echo $$ > {pid}; sleep 600",
        "sleep 600 & echo $! > {pid}; wait",
        "trap '' TERM ALRM INT; sleep 600 & echo $! > {pid}; wait; wait",
        # The child is gone, what it started holds its output.
        "sleep 600 & echo $! > {pid}; exit 0",
    ],
    ids=["hangs", "its child hangs", "ignores signals", "leaves a child behind"],
)
def test_command_beyond_its_limit_is_killed_with_its_children(
    tmp_path: pathlib.Path, script: str
) -> None:
    pid = tmp_path / "pid"
    with pytest.raises(TimeoutError, match=r"sh did not end within 0\.5 s"):
        sh(script.format(pid=pid), limit=0.5)
    process = pathlib.Path(f"/proc/{pid.read_text().strip()}")
    wait_until(
        lambda: not process.exists() or "zombie" in (process / "status").read_text(),
        5,
        "it is gone",
    )


def test_command_that_does_not_read_its_input_is_killed() -> None:
    with pytest.raises(TimeoutError):
        sh("sleep 600", stdin="x" * 10**7, limit=0.5)


def test_killed_bundle_is_a_timeout() -> None:
    def hangs(argv: object, stdin: str, limit: float) -> Ran:
        assert limit == 8.0
        raise TimeoutError

    with pytest.raises(Timeout, match="ovs-ofctl add-flows did not end within 7 s"):
        Ofctl("/run", "br-int", 7, hangs).bundle(["add table=0"])


def test_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ToolMissing, match="ovs-ofctl cannot be run"):
        Ofctl("/run", "br-int", 7).count(0, 0)


def test_every_call_is_watched_by_its_name() -> None:
    watched: list[str] = []

    class Watching:
        def __init__(self, what: str) -> None:
            watched.append(what)

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

    ran = Ran("flow_count=3", "", 0)
    Ofctl("/run", "br-int", 7, lambda *_: ran, watch=Watching).count(0, 0)
    assert watched == ["ovs-ofctl dump-aggregate on br-int"]
