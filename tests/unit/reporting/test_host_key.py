"""The file with the key of a host."""

import os
import time
from pathlib import Path

import pytest

from agent_flows.reporting import host_key
from agent_flows.rpc.signing import public_text

DAY = 24 * 3600


def age(path: Path, days: float) -> None:
    then = time.time() - days * DAY
    os.utime(path, (then, then))


def test_a_key_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    first, again = (host_key.load(tmp_path, 90) for _ in range(2))
    assert public_text(first.current) == public_text(again.current)
    assert (first.earlier, again.earlier) == (None, None)
    [file] = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("days", "lifetime", "replaced"), [(91, 90, 1), (89, 90, 0), (900, 0, 0)])
def test_a_key_is_replaced_after_its_lifetime_and_the_earlier_one_kept(
    tmp_path: Path, days: float, lifetime: float, replaced: bool
) -> None:
    first = public_text(host_key.load(tmp_path, lifetime).current)
    age(tmp_path / "host_key.pem", days)
    second = host_key.load(tmp_path, lifetime)
    assert (public_text(second.current) != first) == replaced
    if replaced:
        assert second.earlier is not None
        assert public_text(second.earlier) == first
    third = host_key.load(tmp_path, lifetime)
    assert public_text(third.current) == public_text(second.current)
    assert (third.earlier is None) == (second.earlier is None)


def test_a_crash_while_a_key_is_replaced_leaves_one_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = public_text(host_key.load(tmp_path, 90).current)
    age(tmp_path / "host_key.pem", 91)
    made = []

    def crash(path: Path) -> None:
        made.append(path)
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(host_key, "_make", crash)
        with pytest.raises(OSError, match="no space"):
            host_key.load(tmp_path, 90)
    assert made
    keys = host_key.load(tmp_path, 90)
    assert keys.earlier is not None
    assert public_text(keys.earlier) == first != public_text(keys.current)


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n", os.urandom(64)])
def test_a_damaged_file_is_an_error_that_says_what_to_do(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "host_key.pem").write_bytes(content)
    with pytest.raises(host_key.HostKeyDamaged, match=r"host_key.pem contains no .* delete it"):
        host_key.load(tmp_path, 90)
