"""Where gating is off, and until when."""

import datetime

import pytest

from agent_flows.server.core.gating import ON, Gating, Suspension

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
HOUR = datetime.timedelta(hours=1)


def suspension(host: str | None = None, hours: int = 1, *, ended: bool = False) -> Suspension:
    ended_at = NOW if ended else None
    return Suspension("1", host, "a reason", "ann", NOW, NOW + hours * HOUR, ended_at)


def test_without_a_suspension_gating_is_on() -> None:
    assert ON.off("host-a", NOW) is None


def test_a_suspension_of_one_host_concerns_no_other() -> None:
    gating = Gating((suspension("host-a"),))
    assert gating.hosts_off(["host-a", "host-b"], NOW) == {"host-a"}
    assert gating.off(None, NOW) is None


def test_a_suspension_without_a_host_concerns_all() -> None:
    assert Gating((suspension(),)).hosts_off(["host-a", "host-b"], NOW) == {"host-a", "host-b"}


@pytest.mark.parametrize("passed", [HOUR, 2 * HOUR])
def test_it_ends_at_its_time(passed: datetime.timedelta) -> None:
    gating = Gating((suspension(),))
    assert gating.off("host-a", NOW + passed) is None
    assert gating.off("host-a", NOW + HOUR - datetime.timedelta(microseconds=1)) is not None


def test_it_ends_when_gating_is_turned_on() -> None:
    assert Gating((suspension(ended=True),)).off("host-a", NOW) is None


def test_of_several_the_one_that_ends_last_counts() -> None:
    longest = suspension(hours=3)
    assert Gating((suspension("host-a"), longest)).off("host-a", NOW) == longest
