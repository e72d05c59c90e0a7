"""Where the dashboard refuses to start, and what it reports then."""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_flows.cli.failure import CommandFailed
from agent_flows.dashboard.service import Service, connect

_ROOT = Path(__file__).parents[3]


@pytest.fixture
def plain_neutron() -> Iterator[str]:
    argv = [sys.executable, "-m", "tests.unit.dashboard.plain_neutron"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=_ROOT) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


@pytest.fixture(autouse=True)
def no_clouds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither a file nor variables."""
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "none.yaml"))
    for name in ("OS_CLOUD", "OS_AUTH_TYPE", "OS_AUTH_URL", "OS_ENDPOINT", "OS_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def options(**given: object) -> argparse.Namespace:
    return argparse.Namespace(**{"os_cacert": None, "insecure": False, **given})


def test_without_our_extension(plain_neutron: str) -> None:
    with pytest.raises(CommandFailed, match="no API extension agent-flows"):
        connect(options(os_auth_type="none", os_endpoint=plain_neutron), None, None)


def test_without_a_neutron() -> None:
    with pytest.raises(CommandFailed, match="Cannot connect to a cloud"):
        connect(options(os_auth_type="none", os_endpoint="http://127.0.0.1:1"), None, None)


def test_without_a_cloud() -> None:
    with pytest.raises(CommandFailed, match="--os-cloud"):
        connect(options(), None, None)


def test_with_a_cloud_that_the_file_lacks() -> None:
    with pytest.raises(CommandFailed, match="nowhere"):
        connect(options(), "nowhere", None)


@pytest.mark.parametrize(("host", "port"), [("192.0.2.1", 0), ("127.0.0.1", 70000)])
def test_with_an_address_that_is_not_here(host: str, port: int) -> None:
    with pytest.raises(CommandFailed, match="Cannot listen"):
        Service(None, host, port)  # type: ignore[arg-type]
