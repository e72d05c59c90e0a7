"""A RabbitMQ of our own: node, cookie, epmd and directories, all private."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.certificates import Authority
from lab.lifetime import Lifetime
from lab.namespace import Namespace, mark
from lab.process import Daemon, free_port, run

_SERVER = (
    "/usr/lib/rabbitmq/bin/rabbitmq-server"  # Debian's wrapper in sbin insists on its own user
)
_CTL = "/usr/lib/rabbitmq/bin/rabbitmqctl"
_READY_SECONDS = 60
_AMQP_HEADER = b"AMQP\x00\x00\x09\x01"
# Each look of rabbitmqctl at the queue would cost a second of CPU; the node itself looks, and it
# prints "ready unacknowledged" twice a second.
_DEPTHS = """
Q = rabbit_misc:r(<<"/">>, queue, <<"%s">>),
F = fun Look() ->
  case rabbit_amqqueue:lookup(Q) of
    {ok, Found} ->
      [{_, R}, {_, U}] =
        rabbit_amqqueue:info(Found, [messages_ready, messages_unacknowledged]),
      io:format("~b ~b~n", [R, U]);
    _ -> ok
  end,
  timer:sleep(500),
  Look()
end,
F().
"""

_DELETE_ALL = """
[rabbit_amqqueue:delete(Queue, false, false, <<"lab">>) || Queue <- rabbit_amqqueue:list()].
"""


@dataclass(frozen=True)
class Depth:
    """Messages of a queue: those that wait, and those that a consumer has and did not
    acknowledge."""

    ready: int
    unacknowledged: int


class Rabbit(Lifetime):
    """rabbitmq-server on loopback, of ``namespace`` if one is given.

    Listens on another ``address`` of that namespace for clients of other ones; with an
    ``authority`` by TLS only, to clients with a certificate.
    """

    def __init__(
        self,
        namespace: Namespace | None = None,
        address: str = "127.0.0.1",
        authority: Authority | None = None,
    ) -> None:
        super().__init__()
        self.namespace = namespace
        self.address = address
        self._authority = authority
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
        epmd.ready(lambda: self._listens(epmd_port), _READY_SECONDS)
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

    @contextlib.contextmanager
    def depths(self, queue: str) -> Iterator[list[Depth]]:
        """The list has the queue's depths, twice a second, when the block has ended."""
        argv = [_CTL, "-q", "eval", _DEPTHS % queue]
        out = self.directory / "depths.out"
        out.unlink(missing_ok=True)
        found: list[Depth] = []
        with self._daemon("depths", argv, self._env) as looking:
            looking.ready(out.read_text, _READY_SECONDS)
            yield found
        rows = (line.split() for line in out.read_text().splitlines())
        found += [Depth(int(row[0]), int(row[1])) for row in rows if len(row) == 2]

    def pause(self) -> None:
        """An outage: the broker ends in order and keeps what is on its disk."""
        self._server.stop(seconds=30)

    def resume(self) -> None:
        """The outage is over."""
        self._server.start()
        self._server.ready(self._answers, _READY_SECONDS)

    def lose_queues(self) -> None:
        """Delete every queue with what waits in it, as a broker without its disk would."""
        self.ctl("eval", _DELETE_ALL)

    @contextlib.contextmanager
    def blocking(self) -> Iterator[None]:
        """Its memory is full, as far as it knows: it takes nothing from who publishes."""
        self.ctl("set_vm_memory_high_watermark", "absolute", "1MiB")
        try:
            yield
        finally:
            self.ctl("set_vm_memory_high_watermark", "0.4")

    @contextlib.contextmanager
    def cut_off(self) -> Iterator[None]:
        """Packets to and from it vanish, and no connection is reset; only in a namespace."""
        if self.namespace is None:
            raise RuntimeError("the rules would be those of this machine")
        rules = [
            [chain, "-p", "tcp", side, str(self.port), "-j", "DROP"]
            for chain, side in (("INPUT", "--dport"), ("OUTPUT", "--sport"))
        ]
        for rule in rules:
            run(self.namespace.argv(["iptables", "-w", "-I", *rule]))
        try:
            yield
        finally:
            for rule in rules:
                run(self.namespace.argv(["iptables", "-w", "-D", *rule]))

    def _environment(self, epmd_port: int) -> Mapping[str, str]:
        here = self.directory
        (here / "rabbitmq.conf").write_text(
            self._listeners() +
            # By default the broker's guest may come from loopback only.
            "loopback_users = none\n"
            # Of 128 by default: a storm of agents connects at once.
            "tcp_listen_options.backlog = 4096\n"
            # Tests must not depend on how full this machine's disk is.
            "disk_free_limit.absolute = 10MB\n"
        )
        (here / "enabled_plugins").write_text("[].\n")
        (here / "rabbitmq-env.conf").write_text("")
        return {
            "HOME": str(here),
            "ERL_EPMD_PORT": str(epmd_port),
            # Every Erlang starts an epmd that detaches itself. One that starts while the node is
            # stopped could take the port of ours once that has ended, and would stay.
            "ERL_ZFLAGS": "-start_epmd false",
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

    def _listeners(self) -> str:
        if self._authority is None:
            return f"listeners.tcp.1 = {self.address}:{self.port}\n"
        key, certificate = self._authority.issue("rabbitmq")
        return (
            "listeners.tcp = none\n"
            f"listeners.ssl.1 = {self.address}:{self.port}\n"
            f"ssl_options.cacertfile = {self._authority.ca}\n"
            f"ssl_options.certfile = {certificate}\n"
            f"ssl_options.keyfile = {key}\n"
            "ssl_options.verify = verify_peer\n"
            "ssl_options.fail_if_no_peer_cert = true\n"
        )

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
            if self._authority is not None:
                return True  # what it says to a client without a certificate does not matter
            probe.sendall(_AMQP_HEADER)
            return probe.recv(1) == b"\x01"  # a method frame: Connection.Start
        return False

    def _listens(self, port: int) -> bool:
        with self._entered():
            probe = socket.socket()
        with probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def _entered(self) -> contextlib.AbstractContextManager[None]:
        return self.namespace.entered() if self.namespace else contextlib.nullcontext()
