"""Fixtures for tests on a real switch."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lab.switch import Switch
from lab.vm import Vm


@pytest.fixture(scope="session", autouse=True)
def root() -> None:
    """The suite creates network namespaces."""
    if os.geteuid() != 0:
        pytest.exit("needs root: it creates network namespaces; try: sudo tools/test functional", 1)


@pytest.fixture
def switch() -> Iterator[Switch]:
    """A switch of the test's own, without bridges; starts in a tenth of a second."""
    with Switch() as running:
        yield running


@pytest.fixture
def vm(switch: Switch) -> Iterator[Callable[..., Vm]]:
    """Makes VMs beside ``switch``; the arguments are those of :class:`Vm` after the switch."""
    with ExitStack() as stack:
        yield lambda *args, **kwargs: stack.enter_context(Vm(switch, *args, **kwargs))


@pytest.fixture
def ofctl_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that gets a line for each call of ovs-ofctl."""
    log, real = tmp_path / "calls", shutil.which("ovs-ofctl")
    log.touch()
    wrapper = tmp_path / "bin" / "ovs-ofctl"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\necho "$*" >> {log}\nexec {real} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    return log
