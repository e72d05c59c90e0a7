"""The key by which a host's agent signs its calls: a file in the state directory."""

import os
import pathlib
import time

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from oslo_log import log

from agent_flows.rpc.signing import HostKeys, fingerprint, public_text

LOG = log.getLogger(__name__)

_CURRENT, _EARLIER = "host_key.pem", "host_key.earlier.pem"
_DAY = 24 * 3600.0


class HostKeyDamaged(OSError):
    """The file of a key contains no key."""


def load(state_dir: pathlib.Path, lifetime: float) -> HostKeys:
    """The host's keys. The first start makes one; one that is older than ``lifetime`` days (0: at
    any age it stays) is replaced, and vouches for the one that follows it.

    Only the process that has the lock of ``state_dir`` may call it. Raises
    :class:`HostKeyDamaged`, or another OSError if a file cannot be read or written.
    """
    current, earlier = state_dir / _CURRENT, state_dir / _EARLIER
    if not current.exists():
        keys = HostKeys(_make(current), _read(earlier) if earlier.exists() else None)
    elif lifetime and time.time() - current.stat().st_mtime > lifetime * _DAY:
        # The one that vouches is stored first: a crash between the two leaves it in both files.
        replaced = _read(current)
        _write(earlier, replaced)
        keys = HostKeys(_make(current), replaced)
        LOG.info("The host's key was replaced after %g days", lifetime)
    else:
        keys = HostKeys(_read(current), _read(earlier) if earlier.exists() else None)
    LOG.info("The host's key is %s", fingerprint(public_text(keys.current)))
    return keys


def _make(path: pathlib.Path) -> Ed25519PrivateKey:
    key = Ed25519PrivateKey.generate()
    _write(path, key)
    return key


def _write(path: pathlib.Path, key: Ed25519PrivateKey) -> None:
    """At once or not at all, and readable by this user only."""
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _read(path: pathlib.Path) -> Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise HostKeyDamaged(f"{path} contains no Ed25519 key: delete it, and a new one is made")
    return key
