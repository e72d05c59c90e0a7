"""Escapes text from outside for a terminal and for a log.

Names, errors and the state of agents come from people and hosts that are not
trusted: an escape sequence could change or hide what an operator sees, and a
line end could forge a line of a log.
"""

import unicodedata

# Control, format (which reorders and hides), surrogate, private, unassigned; ends of lines.
_ESCAPED = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def printable(text: str) -> str:
    r"""``text`` in one line, with invisible characters as escapes: ESC is ``\x1b``."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        _escape(char) if unicodedata.category(char) in _ESCAPED else char for char in text
    )


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
