from hypothesis import given
from hypothesis import strategies as st

from agent_flows.openflow import cookie
from agent_flows.openflow.cookie import Kind


@given(st.integers(1, 0xFEFF), st.integers(0, cookie.MAX_GENERATION))
def test_cookie_of_a_port_contains_ofport_and_generation(ofport: int, generation: int) -> None:
    made = cookie.port(ofport, generation)
    assert cookie.is_ours(made)
    assert (cookie.kind(made), cookie.serial(made)) == (Kind.PORT, ofport)
    assert cookie.generation(made) == generation


def test_cookie_of_a_shared_flow_is_a_digest_of_its_text() -> None:
    one = cookie.content(Kind.MEMBER, "table=82 actions=conjunction(1,1/2)")
    assert one == cookie.content(Kind.MEMBER, "table=82 actions=conjunction(1,1/2)")
    assert one != cookie.content(Kind.MEMBER, "table=82 actions=conjunction(2,1/2)")
    assert cookie.is_ours(one)
    assert cookie.kind(one) == Kind.MEMBER


def test_other_owners_cookie_is_not_ours() -> None:
    assert not cookie.is_ours(0)
    assert not cookie.is_ours(0xAF11 << 48)
