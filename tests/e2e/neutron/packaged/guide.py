"""The guide for Neutron, as far as a machine can follow it: its blocks of commands and of files."""

import itertools
import re
import textwrap
from pathlib import Path

_GUIDE = Path(__file__).parents[4] / "doc/operator/neutron.md"
# Text has at most the three spaces of a list's item.
_INDENTED = " " * 4


def blocks(heading: str) -> list[str]:
    """The blocks below ``heading``, up to the next one of any level.

    Raises ValueError if there is no such heading.
    """
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", _text(), re.M | re.S)
    if found is None:
        raise ValueError(f"the guide has no heading {heading!r}")
    paragraphs = re.split(r"\n\s*\n", found[1])
    return [
        textwrap.dedent("\n\n".join(paragraph.strip("\n") for paragraph in block)) + "\n"
        for is_block, block in itertools.groupby(paragraphs, _is_block)
        if is_block
    ]


def commands(block: str) -> list[str]:
    """Its lines without their comments."""
    lines = (re.sub(r"\s+# .*", "", line).strip() for line in block.splitlines())
    return [line for line in lines if line]


def command(program: str) -> str:
    """The first that the guide has in its text, in backticks, with these words first."""
    found = re.search(rf"`({re.escape(program)}[^`]*)`", _text())
    if found is None:
        raise ValueError(f"the guide has no command {program!r}")
    return " ".join(found[1].split())


def names_after(words: str) -> list[str]:
    """What is in backticks in the rest of the paragraph that has these words."""
    rest = _text().partition(words)[2].partition("\n\n")[0]
    return re.findall(r"`([^`]+)`", rest)


def _is_block(paragraph: str) -> bool:
    lines = paragraph.strip("\n").splitlines()
    return bool(lines) and all(line.startswith(_INDENTED) for line in lines)


def _text() -> str:
    return _GUIDE.read_text()
