"""python-ovs gets from our parser what it gets from its own."""

import json

import ovs.json
from hypothesis import given
from hypothesis import strategies as st

from agent_flows.l2.json_stream import StreamParser

# OVSDB's strings have no NUL, its integers 64 bits (RFC 7047, section 3.1).
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
)
OBJECTS = st.dictionaries(TEXT, VALUES)


def read(text: str, sizes: list[int]) -> tuple[list[object], str]:
    """The values in a stream that arrives in pieces of ``sizes``, and what is left over."""
    values, parser, rest = [], StreamParser(), ""
    while text:
        size = sizes.pop() if sizes else len(text)
        rest, text = text[:size], text[size:]
        while rest:
            rest = rest[parser.feed(rest) :]
            if parser.is_done():
                values.append(parser.finish())
                parser = StreamParser()
    return values, rest


@given(st.lists(OBJECTS, max_size=4), st.lists(st.integers(1, 9), max_size=200), st.booleans())
def test_a_stream_in_any_pieces_gives_the_texts_it_was_made_of(
    objects: list[object], sizes: list[int], ascii_only: bool
) -> None:
    stream = "".join(json.dumps(each, ensure_ascii=ascii_only) for each in objects)
    assert read(stream, sizes) == (objects, "")


@given(OBJECTS)
def test_values_are_those_of_the_parser_it_stands_in_for(value: object) -> None:
    text = ovs.json.to_string(value)
    assert read(text, []) == ([ovs.json.from_string(text)], "")


def test_a_text_that_is_no_json_says_so_in_words() -> None:
    (answer,), _ = read('{"id": nonsense}', [])
    assert isinstance(answer, str)
    (answer,), _ = read("]", [])
    assert isinstance(answer, str)
