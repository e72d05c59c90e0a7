"""Commands as an administrator runs them, outside of the checkout's environment."""

import os
import subprocess
from pathlib import Path

CHECKOUTS = ("PYTHONPATH", "VIRTUAL_ENV")


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """What the command prints; with all of it in the failure if it exits with another code than 0.

    It does not see the checkout's modules.
    """
    environment = {
        name: value for name, value in os.environ.items() if name not in CHECKOUTS
    } | variables
    ran = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
        check=False,
    )
    assert ran.returncode == 0, f"{command[0]}: {ran.stdout[-4000:]}"
    return ran.stdout
