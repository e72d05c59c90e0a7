"""python-ovs gets from our parser what it gets from its own."""

import importlib.util
import json
from types import ModuleType

import ovs.json
import pytest
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
def test_stream_in_any_pieces_gives_its_texts(
    objects: list[object], sizes: list[int], ascii_only: bool
) -> None:
    stream = "".join(json.dumps(value, ensure_ascii=ascii_only) for value in objects)
    assert read(stream, sizes) == (objects, "")


@pytest.fixture(scope="module")
def original() -> ModuleType:
    """python-ovs' own module, without the parser that replaces its own."""
    spec = importlib.util.find_spec("ovs.json")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@given(value=OBJECTS)
def test_values_equal_those_of_the_replaced_parser(original: ModuleType, value: object) -> None:
    text = original.to_string(value)
    assert read(text, []) == ([original.from_string(text)], "")


@pytest.mark.parametrize("text", ['{"a": [1, "]"]}', "[]", '[{"}": "\\\\"}]'])
def test_python_ovs_reads_a_whole_text_with_it(
    original: ModuleType, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(ovs.json, "Parser", StreamParser)
    assert ovs.json.from_string(text) == original.from_string(text)
    assert isinstance(ovs.json.from_string('{"a": 1} and more'), str)


def test_invalid_json_gives_an_error_message() -> None:
    (answer,), _ = read('{"id": nonsense}', [])
    assert isinstance(answer, str)
    (answer,), _ = read("]", [])
    assert isinstance(answer, str)
