"""What a build makes of this tree."""

import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
VERSION = "1.2.3"


@dataclass(frozen=True)
class Built:
    """``source`` are the files of the repository."""

    source: frozenset[str]
    sdist: Path
    wheel: Path

    def in_sdist(self) -> set[str]:
        with tarfile.open(self.sdist) as archive:
            names = [entry.name.partition("/")[2] for entry in archive if entry.isfile()]
        return set(names)

    def in_wheel(self) -> set[str]:
        with zipfile.ZipFile(self.wheel) as archive:
            return set(archive.namelist())

    def read(self, name: str) -> str:
        with zipfile.ZipFile(self.wheel) as archive:
            return archive.read(name).decode()
