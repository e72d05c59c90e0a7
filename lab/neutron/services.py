"""Neutron's DHCP and L3 agents, on a compute host."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lab.lifetime import Lifetime
from lab.neutron import configuration
from lab.neutron.configuration import Paths, Sections
from lab.neutron.controller import PROGRAMS
from lab.neutron.host import Host
from lab.process import Daemon, run

Kind = Literal["dhcp", "l3"]


class ServiceAgent(Lifetime):
    """One of these agents, beside the switch of ``host``; ``extra`` is added to its file.

    What it starts (dnsmasq, keepalived, radvd) leaves its session, and the network
    namespaces it makes have names of Neutron's (``qdhcp-``, ``qrouter-``). So it runs in
    a process namespace that the kernel ends with it, and sees a ``/run/netns`` of its
    own: nothing is left behind, even after ``kill -9``.
    """

    def __init__(self, kind: Kind, host: Host, extra: Sections) -> None:
        super().__init__()
        self.host = host.name
        self.binary = f"neutron-{kind}-agent"
        self._switch = host.switch
        self._paths = Paths(host.place / kind, PROGRAMS, host.bus)
        self._extra = extra

    def _start(self) -> None:
        place = self._paths.place
        place.mkdir(exist_ok=True)
        # dnsmasq reads files there as a user of its own.
        place.chmod(0o755)
        file = place / "agent.conf"
        file.write_text(
            configuration.service_agent_file(
                self._extra, self._paths, file.name, self.host, self._switch.run_dir
            )
        )
        own = 'mount -t tmpfs netns /run/netns && exec "$@"'
        inside = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        argv = [
            *("setpriv", "--pdeathsig", "KILL"),
            *(*inside, "sh", "-c", own, "sh"),
            *(str(PROGRAMS / self.binary), "--config-file", str(file)),
        ]
        env = {"OVS_RUNDIR": str(self._switch.run_dir), "TMPDIR": str(place)}
        self.daemon = Daemon(
            f"{self.binary} of {self.host}",
            self._switch.namespace.argv(argv),
            place / "agent.log",
            env,
        )
        self._stack.callback(self.daemon.kill)
        self.daemon.start()

    def namespaces(self) -> list[str]:
        """The network namespaces it has made."""
        with contextlib.suppress(ValueError):
            return run([*self._enter(), "ls", "/run/netns"]).split()
        return []

    def inside(self, namespace: str, *argv: str) -> str:
        """What a command prints that runs in one of :meth:`namespaces`."""
        return run([*self._enter(), "ip", "netns", "exec", namespace, *argv])

    def _enter(self) -> Sequence[str]:
        """Raises ValueError while it starts."""
        unshare = self.daemon.pid
        [agent] = Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split()
        return ["nsenter", "--target", agent, "--mount", "--pid", "--net"]
