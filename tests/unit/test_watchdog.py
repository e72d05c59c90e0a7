"""An operation that runs too long is a trouble until it ends."""

import threading
from collections.abc import Iterator

import pytest

from agent_flows.report import Trouble
from agent_flows.supervision import Troubles
from agent_flows.watchdog import Watchdog
from lab.process import wait_until

PATIENCE = 5.0


@pytest.fixture
def troubles() -> Troubles:
    return Troubles()


@pytest.fixture
def watchdog(troubles: Troubles) -> Iterator[Watchdog]:
    watchdog = Watchdog(troubles, tick=0.02)
    watchdog.start()
    yield watchdog
    watchdog.stop(PATIENCE)


def test_an_operation_that_ends_in_time_is_no_trouble(
    watchdog: Watchdog, troubles: Troubles
) -> None:
    changes: list[object] = []
    troubles.changed = lambda: changes.append(troubles.current())
    with watchdog.watch(Trouble.FLOW, 60.0)("wire of 3 ports"):
        threading.Event().wait(0.1)
        assert watchdog.oldest(Trouble.FLOW) is not None
        assert watchdog.oldest(Trouble.OPENFLOW) is None
    assert changes == []
    assert watchdog.oldest(Trouble.FLOW) is None


def test_an_operation_that_takes_too_long_is_a_trouble_until_it_ends(
    watchdog: Watchdog, troubles: Troubles
) -> None:
    def fail_at_last() -> None:
        with watchdog.watch(Trouble.OPENFLOW, 0.1)("a call"):
            wait_until(lambda: Trouble.OPENFLOW in troubles.current(), PATIENCE, "the trouble")
            assert troubles.current()[Trouble.OPENFLOW] == "a call has been running for 0 s"
            raise OSError("at last")

    with pytest.raises(OSError, match="at last"):
        fail_at_last()
    assert troubles.current() == {}


def test_the_oldest_of_several_late_operations_is_named_until_the_last_ends(
    watchdog: Watchdog, troubles: Troubles
) -> None:
    watch = watchdog.watch(Trouble.FLOW, 0.1)
    with watch("younger") as _:
        pass
    second = watch("second")
    with watch("first"):
        with second:
            wait_until(lambda: Trouble.FLOW in troubles.current(), PATIENCE, "the trouble")
            assert troubles.current()[Trouble.FLOW].startswith(("first", "second"))
            threading.Event().wait(0.2)
        wait_until(
            lambda: troubles.current().get(Trouble.FLOW, "").startswith("first"),
            PATIENCE,
            "the one that is left is named",
        )
    assert troubles.current() == {}


def test_a_late_operation_is_not_reported_with_every_tick(
    watchdog: Watchdog, troubles: Troubles
) -> None:
    changes: list[object] = []
    troubles.changed = lambda: changes.append(troubles.current())
    with watchdog.watch(Trouble.FLOW, 0.1)("wire of 3 ports"):
        threading.Event().wait(0.6)
    assert len(changes) <= 4
