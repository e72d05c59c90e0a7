"""Completion in bash, by bash-completion and the file that the package installs."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.product import BIN
from lab.terminal import Terminal

ROOT = Path(__file__).parents[3]
SECONDS = 30


@pytest.fixture
def bash(tmp_path: Path) -> Iterator[Terminal]:
    """An interactive shell that finds the installed file where bash-completion looks for it."""
    completions = tmp_path / "share" / "bash-completion" / "completions"
    shutil.copytree(ROOT / "etc" / "bash-completion", completions)
    start = tmp_path / "bashrc"
    start.write_text("PS1='ready> '\n. /usr/share/bash-completion/bash_completion\n")
    env = {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "XDG_DATA_DIRS": f"{tmp_path}/share",
        "HOME": str(tmp_path),
        "INPUTRC": "/dev/null",
    }
    with Terminal(["bash", "--noprofile", "--rcfile", str(start), "-i"], env) as shell:
        shell.shows("ready> ", SECONDS)
        yield shell


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("agent-flows secu", "agent-flows security-group "),
        ("agent-flows port ver", "agent-flows port verify "),
        ("agent-flows task list --sta", "agent-flows task list --state "),
    ],
)
def test_tab_completes_commands_and_options(bash: Terminal, typed: str, completed: str) -> None:
    bash.type(f"{typed}\t")
    bash.shows(completed, SECONDS)


def test_two_tabs_list_the_commands(bash: Terminal) -> None:
    bash.type("agent-flows port \t\t")
    shown = bash.shows("wait", SECONDS)
    assert {"create", "delete", "list", "resync", "show", "verify"} <= set(shown.split())
