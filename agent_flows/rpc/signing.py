"""Signs the calls of a host's agent, and proves on the server which key signed a call.

Every client of the message bus knows the names of hosts and of agents' processes. Only a host has
its private key. The signature (Ed25519, RFC 8032) covers the call's name, the host, all arguments,
the process and a number that rises with each call, so a recorded call cannot be used again as a
sign of life. It is part of the RPC context, which a server without it ignores.

Which key may speak for which host is decided by :mod:`agent_flows.server.core.liveness`.
"""

import base64
import binascii
import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

import pydantic
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic.dataclasses import dataclass as validated

from agent_flows.rpc import identity
from agent_flows.rpc.answers import Held
from agent_flows.rpc.identity import Identity, Proof
from agent_flows.validation import Invalid, parse

_CONTEXT = "agent_flows_signature"
# A newer agent may add fields.
_LENIENT = pydantic.ConfigDict(extra="ignore")
_Key = Annotated[str, pydantic.Strict(), pydantic.Field(pattern=r"^[A-Za-z0-9+/]{43}=$")]
_Signature = Annotated[str, pydantic.Strict(), pydantic.Field(pattern=r"^[A-Za-z0-9+/]{86}==$")]
_Number = Annotated[int, pydantic.Strict(), pydantic.Field(ge=0, lt=2**63)]


@dataclass(frozen=True)
class HostKeys:
    """The private key of a host, and the one that it replaced, if there was one."""

    current: Ed25519PrivateKey
    earlier: Ed25519PrivateKey | None = None


@validated(frozen=True, config=_LENIENT)
class _Succession:
    """The key that the host had before, and its signature of the key that follows it."""

    key: _Key
    signature: _Signature


@validated(frozen=True, config=_LENIENT)
class _Signed:
    key: _Key
    number: _Number
    signature: _Signature
    succeeds: _Succession | None = None


_SIGNED = pydantic.TypeAdapter(_Signed)


class Signer:
    """Makes the RPC context of every call of one agent's process. Safe from any thread.

    ``clock`` gives microseconds since the epoch, as sequences are.
    """

    def __init__(
        self,
        sender: Identity,
        host: str,
        keys: HostKeys,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._sender = sender
        self._clock = clock
        self._key = keys.current
        self._public = public_text(keys.current)
        self._succession: dict[str, str] | None = None
        if keys.earlier is not None:
            message = _succession(host, self._public)
            self._succession = {
                "key": public_text(keys.earlier),
                "signature": _text(keys.earlier.sign(message)),
            }
        self._host = host
        self._lock = threading.Lock()
        self._last = 0
        self._offset = 0

    def context(self, call: str, arguments: Mapping[str, object]) -> dict[str, Any]:
        """The context of ``call`` for the host, with ``arguments`` of JSON's types."""
        with self._lock:
            number = self._last = max(self._clock() + self._offset, self._last + 1)
        message = _message(self._sender, call, self._host, arguments, number)
        signed: dict[str, Any] = {
            "key": self._public,
            "number": number,
            "signature": _text(self._key.sign(message)),
        }
        if self._succession is not None:
            signed["succeeds"] = self._succession
        return {**self._sender.to_context(), _CONTEXT: signed}

    def follow(self, held: Held) -> None:
        """Number the next calls as a server wants them that did not count the last one: above the
        number that it has, and by its clock, not by this host's."""
        with self._lock:
            self._last = held.number
            self._offset = held.clock - self._clock() if held.clock else 0


def sender_of(
    ctxt: Mapping[str, Any], call: str, host: str, arguments: Mapping[str, object]
) -> Identity | None:
    """The sender of a call, with the key that signed it; None for an agent of a release without
    identities.

    Raises :class:`agent_flows.validation.Invalid` for a signature that does not match the call.
    """
    sender = identity.from_context(ctxt)
    raw = ctxt.get(_CONTEXT) if isinstance(ctxt, Mapping) else None
    if sender is None or raw is None:
        return sender
    try:
        signed = parse(_SIGNED, raw)
    except Invalid as exc:
        raise Invalid("signature", exc.value, f"{exc.field}: {exc.reason}") from None
    try:
        message = _message(sender, call, host, arguments, signed.number)
    except (TypeError, ValueError, RecursionError) as exc:
        raise Invalid("signature", type(exc).__name__, "the arguments must be JSON") from None
    _verify(signed.key, signed.signature, message)
    succeeds = signed.succeeds
    if succeeds is not None:
        _verify(succeeds.key, succeeds.signature, _succession(host, signed.key))
    earlier = None if succeeds is None else succeeds.key
    return replace(sender, proof=Proof(signed.key, signed.number, earlier))


def public_text(key: Ed25519PrivateKey) -> str:
    """The public key as the wire and the database have it."""
    return _text(key.public_key().public_bytes_raw())


def fingerprint(key: str) -> str:
    """What a person compares of a public key, in the form of OpenSSH."""
    digest = hashlib.sha256(base64.b64decode(key)).digest()
    return "SHA256:" + _text(digest).rstrip("=")


def _verify(key: str, signature: str, message: bytes) -> None:
    try:
        public = Ed25519PublicKey.from_public_bytes(base64.b64decode(key))
        public.verify(base64.b64decode(signature), message)
    except (InvalidSignature, ValueError, binascii.Error):
        raise Invalid("signature", key, "must be the key's signature of this call") from None


def _message(
    sender: Identity, call: str, host: str, arguments: Mapping[str, object], number: int
) -> bytes:
    """What is signed: the same bytes on both sides of a transport that carries JSON."""
    signed = ["agent_flows call", call, host, sender.boot_id, list(sender.predecessors), number]
    return json.dumps([*signed, arguments], sort_keys=True, separators=(",", ":")).encode()


def _succession(host: str, key: str) -> bytes:
    return json.dumps(["agent_flows key", host, key], separators=(",", ":")).encode()


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")
