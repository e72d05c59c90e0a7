"""An ovs-ofctl that hangs when a test wants it to."""

import os
import shutil
from pathlib import Path


class StuckTool:
    """An ovs-ofctl in ``directory``, before the real one, that does not end as long as ``flag``
    exists."""

    def __init__(self, directory: Path) -> None:
        self.flag = directory / "stuck"
        self.child = directory / "child"
        real = shutil.which("ovs-ofctl")
        script = directory / "ovs-ofctl"
        script.write_text(
            f'#!/bin/sh\n[ -e {self.flag} ] || exec {real} "$@"\n'
            f"trap '' ALRM TERM\nsleep 600 &\necho $! >> {self.child}\nwait\n"
        )
        script.chmod(0o755)
        self.path = f"{directory}:{os.environ['PATH']}"
        """The environment variable PATH of who should use it."""
