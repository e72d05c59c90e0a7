import itertools

from hypothesis import given
from hypothesis import strategies as st

from agent_flows.openflow import ranges

PORTS = st.integers(0, ranges.TOP)
RANGES = st.tuples(PORTS, PORTS).map(lambda pair: (min(pair), max(pair)))


@given(RANGES, st.lists(PORTS))
def test_masks_match_the_range_and_nothing_else(span: tuple[int, int], others: list[int]) -> None:
    low, high = span
    pairs = list(ranges.masks(low, high))
    for port in {low, high, max(low - 1, 0), min(high + 1, ranges.TOP), *others}:
        assert any(port & mask == value for value, mask in pairs) == (low <= port <= high)


@given(RANGES)
def test_masks_do_not_overlap(span: tuple[int, int]) -> None:
    low, high = span
    sizes = [(~mask & ranges.TOP) + 1 for _, mask in ranges.masks(low, high)]
    assert sum(sizes) == high - low + 1


@given(RANGES)
def test_masks_are_few(span: tuple[int, int]) -> None:
    assert len(list(ranges.masks(*span))) <= 2 * ranges.BITS - 2


@given(st.lists(RANGES, max_size=8), st.lists(PORTS))
def test_merged_ranges_hold_the_same_ports(spans: list[tuple[int, int]], ports: list[int]) -> None:
    merged = ranges.merged(spans)
    for port in ports + [end for span in spans for end in span]:
        before = any(low <= port <= high for low, high in spans)
        assert any(low <= port <= high for low, high in merged) == before


@given(st.lists(RANGES, max_size=8))
def test_merged_ranges_have_a_gap_between_them(spans: list[tuple[int, int]]) -> None:
    merged = ranges.merged(spans)
    for (_, high), (low, _) in itertools.pairwise(merged):
        assert low > high + 1
