"""A machine with a live systemd: this one's files, and what it writes is gone with it."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from lab.namespace import mark
from lab.process import CommandFailed, Daemon, run

_SECONDS = 120
# An overlay cannot have its upper layer on an overlay, as the disk of a container is.
_BOOT = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
echo "$2" > "$1/root/etc/hostname"
exec systemd-nspawn --directory="$1/root" --machine="$2" --private-network \
    --bind-ro="$3" --register=no --keep-unit --console=pipe --link-journal=no \
    --boot systemd.unit=basic.target
"""


class Machine:
    """Boots systemd as the first process of a container, with a network of its own.

    No service of this machine runs in it before it is started there. ``directory`` of this machine
    is ``seen_as`` that there.
    """

    def __init__(self, host: str, directory: Path, seen_as: Path) -> None:
        self._place = Path(tempfile.mkdtemp(prefix=mark()))
        layers = self._place / "layers"
        layers.mkdir()
        words = [str(layers), host, f"{directory}:{seen_as}"]
        argv = ["unshare", "--mount", "bash", "-c", _BOOT, "boot", *words]
        self._container = Daemon("container", argv, self._place / "boot.log")

    def __enter__(self) -> Self:
        try:
            self._container.start()
            self._container.ready(self._has_booted, _SECONDS)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._container.stop(_SECONDS)
        shutil.rmtree(self._place, ignore_errors=True)

    def run(self, script: str, timeout: float = _SECONDS) -> str:
        """The output of a script of bash, as root; raises :class:`CommandFailed`."""
        return run(self._inside(["bash", "-e", "-c", script]), timeout=timeout)

    def _inside(self, argv: Sequence[str]) -> list[str]:
        clean = ["env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
        namespaces = ["--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup"]
        target = f"--target={self._first_process()}"
        return ["nsenter", target, *namespaces, "--root", "--wd", *clean, "HOME=/root", *argv]

    def _has_booted(self) -> bool:
        try:
            self.run("systemctl is-system-running --wait")
        except (CommandFailed, IndexError):
            return False
        return True

    def _first_process(self) -> str:
        """Raises IndexError before it was started."""
        pid = self._container.pid
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]
