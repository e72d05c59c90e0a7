from hypothesis import given
from hypothesis import strategies as st

from agent_flows.openflow import cookie
from agent_flows.openflow.cookie import Kind


@given(st.integers(1, 0xFEFF), st.integers(0, cookie.MAX_GENERATION))
def test_a_ports_cookie_tells_the_port_and_the_generation(ofport: int, generation: int) -> None:
    made = cookie.port(ofport, generation)
    assert cookie.is_ours(made)
    assert (cookie.kind(made), cookie.serial(made)) == (Kind.PORT, ofport)
    assert cookie.generation(made) == generation


def test_a_shared_flows_cookie_tells_its_content() -> None:
    one = cookie.content(Kind.MEMBER, "table=82 actions=conjunction(1,1/2)")
    assert one == cookie.content(Kind.MEMBER, "table=82 actions=conjunction(1,1/2)")
    assert one != cookie.content(Kind.MEMBER, "table=82 actions=conjunction(2,1/2)")
    assert cookie.is_ours(one)
    assert cookie.kind(one) == Kind.MEMBER


def test_somebody_elses_cookie_is_not_ours() -> None:
    assert not cookie.is_ours(0)
    assert not cookie.is_ours(0xAF11 << 48)
