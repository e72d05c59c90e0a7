"""Cookies: the owner of a flow.

::

    63      48 47  40 39                16 15          0
    | 0xAF10 | kind | serial              | generation |   PORT, NETWORK
    | 0xAF10 | kind | digest of the flow's whole text  |   every other kind

A port's serial is its ofport. Open vSwitch reuses an ofport only after all
others, and its restart drops all flows, so the serial need not be stored: it
survives restarts of the agent, and leads from a refused flow to its port. The
generation is the number of the bundle that wrote the flow.

A shared flow's cookie is a digest of its text, so it shows not only that a
flow is installed but that it is the right one.
"""

import enum
import hashlib

OWNER = 0xAF10
MAX_GENERATION = 0xFFFF
_EVERY_BIT = 0xFFFF_FFFF_FFFF_FFFF


class Kind(enum.IntEnum):
    PORT = 0x01
    """Flows of one port."""
    BASE = 0x03
    """The pipeline itself."""
    MEMBER = 0x81
    """One address of remote groups: conjunction(..., 1/2)."""
    CONJUNCTION = 0x82
    """What happens when both sides of a remote group's conjunction match."""
    DELIVERY = 0x83
    """From a MAC, or a whole network, to local ports."""
    NETWORK = 0x42
    """Uplink and translation of one network; the serial is its local VLAN. Written by l2."""


OURS = (OWNER << 48, 0xFFFF << 48)
"""Value and mask that select every flow of agent_flows."""

BASE = (OWNER << 48 | Kind.BASE << 40, 0xFFFF_FF << 40)
FIREWALL = (OWNER << 48, 0xFFFF_40 << 40)
"""These select the pipeline itself, and every flow of ours but the networks'."""
ANY = (0, 0)
"""These select every flow of any owner."""


def port(ofport: int, generation: int) -> int:
    return OWNER << 48 | Kind.PORT << 40 | ofport << 16 | generation


def network(vlan: int, generation: int = 0) -> int:
    return OWNER << 48 | Kind.NETWORK << 40 | vlan << 16 | generation


def content(kind: Kind, text: str) -> int:
    """The cookie of the shared flow ``text`` (table, priority, match and actions)."""
    digest = hashlib.blake2b(text.encode(), digest_size=5).digest()
    return OWNER << 48 | kind << 40 | int.from_bytes(digest)


def is_ours(cookie: int) -> bool:
    return cookie >> 48 == OWNER


def kind(cookie: int) -> int:
    return cookie >> 40 & 0xFF


def serial(cookie: int) -> int:
    return cookie >> 16 & 0xFFFFFF


def generation(cookie: int) -> int:
    return cookie & 0xFFFF


def only(cookie: int) -> tuple[int, int]:
    """Value and mask that select the flows with this very cookie."""
    return cookie, _EVERY_BIT


def selector(cookie: int, mask: int = _EVERY_BIT) -> str:
    """As ovs-ofctl selects flows by cookie; without a mask the switch uses its index."""
    return f"cookie={cookie:#x}/{mask:#x}"
