"""Text from outside, made harmless for a terminal and for a log.

Names, errors and what an agent says of itself come from people and hosts that
need not be trusted: an escape sequence among them could recolour, retitle or
hide what an operator sees, and an end of a line could make up a line of a log.
"""

import unicodedata

# Control, format (which reorders and hides), surrogate, private, unassigned; ends of lines.
_ESCAPED = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def printable(text: str) -> str:
    r"""``text`` in one line with what is no visible character as an escape: ESC is ``\x1b``."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        _escape(char) if unicodedata.category(char) in _ESCAPED else char for char in text
    )


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
