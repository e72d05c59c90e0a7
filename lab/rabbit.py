"""A RabbitMQ of our own: node, cookie, epmd and directories, all private."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.lifetime import Lifetime
from lab.namespace import Namespace, mark
from lab.process import Daemon

_SERVER = (
    "/usr/lib/rabbitmq/bin/rabbitmq-server"  # Debian's wrapper in sbin insists on its own user
)
_CTL = "/usr/lib/rabbitmq/bin/rabbitmqctl"
_READY_SECONDS = 60
_AMQP_HEADER = b"AMQP\x00\x00\x09\x01"


def free_port() -> int:
    """A TCP port of loopback without a listener."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Rabbit(Lifetime):
    """rabbitmq-server on loopback, of ``namespace`` if one is given.

    Listens on another ``address`` of that namespace for clients of other ones.
    """

    def __init__(self, namespace: Namespace | None = None, address: str = "127.0.0.1") -> None:
        super().__init__()
        self.namespace = namespace
        self.address = address
        self.port = self._free_port()
        self.directory = Path()

    @property
    def url(self) -> str:
        """For oslo.messaging's ``transport_url``."""
        return f"rabbit://guest:guest@{self.address}:{self.port}/"

    def _start(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=f"{mark()}rabbit-"))
        self._stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
        epmd_port = self._free_port()
        epmd = self._daemon("epmd", ["epmd", "-port", str(epmd_port), "-address", "127.0.0.1"], {})
        self._stack.enter_context(epmd)
        self._env = self._environment(epmd_port)
        self._server = self._daemon("rabbitmq-server", [_SERVER], self._env)
        self._stack.callback(self._server.stop)
        self.resume()

    def ctl(self, *words: str) -> str:
        """What ``rabbitmqctl`` prints about this node."""
        environment = {**os.environ, **self._env}
        argv = [_CTL, *words]
        inside = self.namespace.argv(argv) if self.namespace else argv
        ran = subprocess.run(
            inside, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        if ran.returncode != 0:
            raise RuntimeError(f"rabbitmqctl {' '.join(words)}: {ran.stderr}{ran.stdout}")
        return ran.stdout

    def consumers(self, queue: str) -> int:
        """How many consumers the queue has; 0 if there is no such queue."""
        rows = (
            line.split() for line in self.ctl("-q", "list_queues", "name", "consumers").splitlines()
        )
        return next((int(row[1]) for row in rows if row[0] == queue), 0)

    def pause(self) -> None:
        """An outage: the broker ends in order and keeps what is on its disk."""
        self._server.stop(seconds=30)

    def resume(self) -> None:
        """The outage is over."""
        self._server.start()
        self._server.ready(self._answers, _READY_SECONDS)

    def _environment(self, epmd_port: int) -> Mapping[str, str]:
        here = self.directory
        (here / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = {self.address}:{self.port}\n"
            # By default the broker's guest may come from loopback only.
            "loopback_users = none\n"
            # Tests must not depend on how full this machine's disk is.
            "disk_free_limit.absolute = 10MB\n"
        )
        (here / "enabled_plugins").write_text("[].\n")
        (here / "rabbitmq-env.conf").write_text("")
        return {
            "HOME": str(here),
            "ERL_EPMD_PORT": str(epmd_port),
            "RABBITMQ_NODENAME": f"{here.name}@localhost",
            "RABBITMQ_MNESIA_BASE": str(here / "mnesia"),
            "RABBITMQ_LOG_BASE": str(here / "log"),
            "RABBITMQ_PID_FILE": str(here / "rabbit.pid"),
            "RABBITMQ_CONFIG_FILE": str(here / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(here / "rabbitmq-env.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(here / "enabled_plugins"),
            "RABBITMQ_DIST_PORT": str(self._free_port()),
            # Two schedulers: a test's broker is idle, and busy waiting would cost the tests' CPU.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none",
        }

    def _daemon(self, name: str, argv: Sequence[str], env: Mapping[str, str]) -> Daemon:
        inside = self.namespace.argv(argv) if self.namespace else argv
        return Daemon(name, inside, self.directory / f"{name}.out", env)

    def _free_port(self) -> int:
        with self._entered():
            return free_port()

    def _answers(self) -> bool:
        with self._entered():
            probe = socket.socket()
        with probe, contextlib.suppress(OSError):
            probe.settimeout(1)
            probe.connect((self.address, self.port))
            probe.sendall(_AMQP_HEADER)
            return probe.recv(1) == b"\x01"  # a method frame: Connection.Start
        return False

    def _entered(self) -> contextlib.AbstractContextManager[None]:
        return self.namespace.entered() if self.namespace else contextlib.nullcontext()
