"""Validation of untrusted values: they become typed values, or an error that names the field.

pydantic does the work; this module adds one type of error for all of the
project, and the few field types of Neutron's API that pydantic does not have.
"""

import ipaddress
import re
import unicodedata
from collections.abc import Sequence
from typing import Annotated, TypeGuard, TypeVar

import pydantic

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

T = TypeVar("T")
A = TypeVar("A", IPAddress, IPNetwork)

_SHOWN = 120
UUID_PATTERN = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
"""A UUID in lower case."""
# Neutron's host names may be any text. Ours are part of topics of the message bus, where * and #
# are wildcards, and of paths of the API.
HOST_PATTERN = r'^[!"$-)+-.0->@-~]{1,255}$'
# pydantic's message contains the pattern itself.
_PATTERNS = {
    UUID_PATTERN: "must be a UUID in lower case",
    HOST_PATTERN: (
        "must be a host's name: 1 to 255 printable ASCII characters without space, /, *, # or ?"
    ),
}
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


class Invalid(ValueError):
    """A value from outside is invalid.

    ``field`` is the dotted path of the field ("" for the whole document),
    ``value`` the value, shortened, ``reason`` one line that states what is valid.
    """

    def __init__(self, field: str, value: object, reason: str) -> None:
        # The sender may have made up the name of the field, too.
        self.field = field if field.isprintable() else repr(field)
        if len(self.field) > _SHOWN:
            self.field = self.field[:_SHOWN] + "..."
        self.value = shown(value)
        self.reason = reason
        super().__init__(f"{self.field or 'document'}: {reason} (got {self.value})")


def shown(value: object, most: int = _SHOWN) -> str:
    """What a person reads of a value from outside: at most ``most`` characters, on one line."""
    try:
        text = repr(value[: most + 1] if isinstance(value, str | bytes) else value)
    except RecursionError:
        return f"a {type(value).__name__} with too many levels"
    except ValueError:
        # Python converts no integer of more than 4300 digits.
        return f"a {type(value).__name__} with too many digits"
    return text if len(text) <= most else text[:most] + "..."


class FieldError(ValueError):
    """Raised by a validator of several fields, with the one at fault."""

    def __init__(self, field: str, value: object, reason: str) -> None:
        self.field, self.value, self.reason = field, value, reason
        super().__init__(reason)


def parse(adapter: pydantic.TypeAdapter[T], raw: object, path: Sequence[str] = ()) -> T:
    """Validate ``raw`` (decoded JSON) and build the typed value.

    Raises :class:`Invalid` for the first field at fault, below ``path``.
    """
    try:
        return adapter.validate_python(raw)
    except pydantic.ValidationError as exc:
        raise _first(exc, path) from None
    except RecursionError:
        # An enum's refusal contains the repr of what it refused.
        raise Invalid(".".join(path), raw, "has too many levels") from None


def _first(exc: pydantic.ValidationError, above: Sequence[str]) -> Invalid:
    error = exc.errors(include_url=False)[0]
    path = [*above, *(str(part) for part in error["loc"])]
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, FieldError):
        return Invalid(".".join([*path, cause.field]), cause.value, cause.reason)
    reason = _PATTERNS.get(str(error.get("ctx", {}).get("pattern")), error["msg"])
    return Invalid(".".join(path), error["input"], reason.removeprefix("Value error, "))


def _address(value: object) -> object:
    if isinstance(value, IPAddress):
        return value
    if not isinstance(value, str):
        raise ValueError("must be an IP address as text")
    try:
        return ipaddress.ip_address(value)
    except ValueError:
        raise ValueError("must be an IPv4 or IPv6 address") from None


def _network(value: object) -> object:
    if isinstance(value, IPNetwork):
        return value
    if not isinstance(value, str):
        raise ValueError("must be a CIDR as text")
    try:
        return ipaddress.ip_network(value)
    except ValueError as exc:
        if "host bits" in str(exc):
            right = ipaddress.ip_network(value, strict=False)
            raise ValueError(f"has host bits set; did you mean {right}?") from None
        raise ValueError("must be an IPv4 or IPv6 CIDR") from None


def _mac(value: object) -> object:
    if isinstance(value, str):
        value = value.lower().replace("-", ":")
        if _MAC.fullmatch(value):
            if int(value[:2], 16) & 1:
                raise ValueError("must be a unicast MAC address")
            return value
    raise ValueError("must be a MAC address such as 02:23:45:67:89:ab")


def _storable(value: str) -> str:
    # PostgreSQL stores no NUL, no encoding a lone surrogate.
    if any(char == "\x00" or "\ud800" <= char <= "\udfff" for char in value):
        raise ValueError("must not contain NUL or surrogate characters")
    return value


def _no_scope(value: A) -> A:
    if "%" in str(value):
        raise ValueError("must not contain a scope id")
    return value


# Characters that reorder or hide the text around them (Unicode, Bidi_Control) or end its line.
_REORDERING = frozenset("\u061c\u200e\u200f\u2028\u2029\ufeff") | frozenset(
    map(chr, [*range(0x202A, 0x202F), *range(0x2066, 0x206A)])
)


def _printable(value: str) -> str:
    if any(unicodedata.category(char) == "Cc" or char in _REORDERING for char in value):
        raise ValueError("must not contain control characters or marks that reorder text")
    return value


def is_port_id(value: object) -> TypeGuard[str]:
    """Whether ``value`` can be the id of a port: a UUID in lower case, as Neutron writes it.

    The iface-id of an interface may be any text.
    """
    return isinstance(value, str) and re.fullmatch(UUID_PATTERN, value) is not None


Address = Annotated[
    IPAddress,
    pydantic.BeforeValidator(_address),
    pydantic.AfterValidator(_no_scope),
    pydantic.WithJsonSchema({"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]}),
]
Network = Annotated[
    IPNetwork,
    pydantic.BeforeValidator(_network),
    pydantic.AfterValidator(_no_scope),
    pydantic.WithJsonSchema({"type": "string", "format": "cidr"}),
]
Mac = Annotated[
    str,
    pydantic.BeforeValidator(_mac),
    pydantic.WithJsonSchema(
        {"type": "string", "pattern": "^[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}$", "format": "mac"}
    ),
]
Bool = Annotated[bool, pydantic.Strict()]
Text = Annotated[str, pydantic.Strict(), pydantic.StringConstraints(max_length=255)]
PhysicalNetwork = Annotated[
    str,
    pydantic.Strict(),
    # neutron_lib/api/definitions/provider_net.py, PHYSICAL_NETWORK_MAX_LEN.
    pydantic.StringConstraints(min_length=1, max_length=64),
    pydantic.AfterValidator(_storable),
]
# Text written by people and shown on a terminal.
PRINTABLE = pydantic.AfterValidator(_printable)
PlainText = Annotated[Text, pydantic.AfterValidator(_storable), PRINTABLE]
Uuid = Annotated[str, pydantic.Strict(), pydantic.StringConstraints(pattern=UUID_PATTERN)]
Hostname = Annotated[str, pydantic.Strict(), pydantic.StringConstraints(pattern=HOST_PATTERN)]
Revision = Annotated[int, pydantic.Strict(), pydantic.Field(ge=0, lt=2**62)]

STRICT = pydantic.ConfigDict(extra="forbid")
