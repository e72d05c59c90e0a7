"""The site of the documentation builds without a warning, and has every page."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from doc import generate

ROOT = generate.ROOT
DOC = ROOT / "doc"
SITE = ROOT / "build" / "site"


@pytest.fixture(scope="module")
def site() -> Path:
    """The site, built as a reader gets it."""
    shutil.rmtree(SITE, ignore_errors=True)
    built = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-m", "sphinx"),
            *("-q", "-W", "--keep-going", "-n", "-E", "-b", "html", str(DOC), str(SITE)),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert built.returncode == 0, built.stderr[-5000:]
    return SITE


def pages() -> set[str]:
    """Every page there is, by its path in ``doc`` without the suffix."""
    return {
        str(page.relative_to(DOC).with_suffix(""))
        for kind in ("*.md", "*.rst")
        for page in DOC.rglob(kind)
    }


def test_the_site_has_every_page(site: Path) -> None:
    assert {page for page in pages() if not (site / f"{page}.html").exists()} == set()


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text()
        for wanted in ('src="http', "src='http", '<link href="http', "googletagmanager"):
            assert wanted not in text, page


def test_flows_are_drawn(site: Path) -> None:
    page = (site / "flows" / "README.html").read_text()
    assert "mermaid" not in page
    drawn = list((site / "_images").glob("graphviz-*.svg"))
    assert len(drawn) > 5
    assert any("security&#45;groups" in image.read_text() for image in drawn)


def test_options_rules_and_release_notes_are_those_of_the_code(site: Path) -> None:
    options = (site / "reference" / "configuration.html").read_text()
    assert "on_refresh_failure" in options
    rules = (site / "reference" / "policy.html").read_text()
    assert "agent_flows:read" in rules
    notes = (site / "reference" / "release-notes.html").read_text()
    assert "New Features" in notes
