"""A machine gets its address by DHCP: udhcpc, as small images have it."""

import stat
from pathlib import Path

from lab.process import run
from lab.vm import INTERFACE, Vm

_ATTEMPTS, _PAUSE = 10, 1
_SCRIPT = """#!/bin/sh
# udhcpc calls this (udhcpc --help).
case $1 in
bound | renew)
    ip address add "$ip/$mask" dev "$interface"
    [ -z "$router" ] || ip route replace default via "${router%% *}"
    ;;
esac
"""


def lease(vm: Vm, directory: Path) -> str:
    """Ask for a lease and use it; the address. Raises CommandFailed without an answer.

    The machine loses the IPv4 addresses it had.
    """
    script = directory / "udhcpc.sh"
    script.write_text(_SCRIPT)
    script.chmod(stat.S_IRWXU)
    vm.namespace.ip("-4", "address", "flush", "dev", INTERFACE)
    client = ["udhcpc", "-i", INTERFACE, "-s", str(script), "-f", "-n", "-q"]
    run(vm.namespace.argv([*client, "-t", str(_ATTEMPTS), "-T", str(_PAUSE)]), timeout=60)
    found = vm.namespace.ip("-4", "-brief", "address", "show", "dev", INTERFACE).split()
    return found[2].partition("/")[0]
