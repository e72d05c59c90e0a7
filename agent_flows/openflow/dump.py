"""What ``ovs-ofctl dump-flows`` prints."""

import re
from collections import Counter
from collections.abc import Iterable

_COOKIE = re.compile(r"cookie=(0x[0-9a-f]+)")


def cookies(lines: Iterable[str]) -> Counter[int]:
    """How many flows there are of each cookie."""
    return Counter(int(found[1], 16) for found in map(_COOKIE.search, lines) if found)
