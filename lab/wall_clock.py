"""A wall clock that a test sets forward and back, for the programs that have it.

libfaketime (0.9.10) is no use here: with FAKETIME_DONT_FAKE_MONOTONIC Python's ``time.sleep`` fails
with EINVAL, because an absolute clock_nanosleep(2) is refused, and without it CLOCK_MONOTONIC jumps
too, which a clock that is set does not make it do.
"""

import shutil
import struct
import tempfile
from pathlib import Path

from lab.lifetime import Lifetime
from lab.namespace import mark
from lab.process import run

_SOURCE = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile long *ahead;

__attribute__((constructor)) static void begin(void)
{
    int file = open(getenv("LAB_WALL_CLOCK"), O_RDONLY);
    ahead = mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) && ahead)
        now->tv_sec += *ahead;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec at;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &at);
    now->tv_sec = at.tv_sec;
    now->tv_usec = at.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now)
{
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    if (now)
        *now = at.tv_sec;
    return at.tv_sec;
}
"""


class WallClock(Lifetime):
    """``env`` is for the programs whose clock it is, from their start on."""

    def _start(self) -> None:
        directory = Path(tempfile.mkdtemp(prefix=f"{mark()}clock-"))
        self._stack.callback(shutil.rmtree, directory, ignore_errors=True)
        # The programs may be those of another user.
        directory.chmod(0o755)
        library = directory / "clock.so"
        self._file = directory / "ahead"
        self._file.write_bytes(bytes(8))
        run(["gcc", "-x", "c", "-O2", "-shared", "-fPIC", "-o", str(library), "-"], stdin=_SOURCE)
        self.env = {"LD_PRELOAD": str(library), "LAB_WALL_CLOCK": str(self._file)}

    def set(self, seconds: int) -> None:
        """So much ahead of this machine's clock; at once, as settimeofday(2) does."""
        with self._file.open("r+b") as file:
            file.write(struct.pack("@l", seconds))
