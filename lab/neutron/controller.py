"""Neutron's controller: database, message bus, API and RPC server."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab.databases import MariaDB
from lab.lifetime import Lifetime
from lab.namespace import Namespace
from lab.neutron import configuration
from lab.neutron.client import Client
from lab.neutron.configuration import API_PORT, SERVER_FILE, Options, Paths
from lab.neutron.nova import Nova
from lab.neutron.underlay import CONTROLLER
from lab.process import Daemon, run
from lab.rabbit import Rabbit

PROGRAMS = Path(sys.executable).parent
_CHECKOUT = Path(__file__).parents[2]
_READY_SECONDS = 90
_PROGRAM_SECONDS = 180
Log = Callable[[str], None]


class Controller(Lifetime):
    """Everything of Neutron that is not on a compute host; its files lie in ``place``."""

    def __init__(self, namespace: Namespace, place: Path, options: Options, log: Log) -> None:
        self.namespace = namespace
        self.place = place
        self.options = options
        self.client = Client(namespace)
        self.config_file = place / SERVER_FILE
        self.rabbit = Rabbit(namespace, CONTROLLER)
        self.nova = Nova(namespace)
        self._log = log
        super().__init__()
        files = {"OS_NEUTRON_CONFIG_DIR": str(place), "OS_NEUTRON_CONFIG_FILES": SERVER_FILE}
        wsgi = [sys.executable, "-m", "lab.neutron.wsgi", str(API_PORT)]
        self.api = self._daemon("neutron-api", wsgi, {**files, "PYTHONPATH": str(_CHECKOUT)})
        rpc_server = [str(PROGRAMS / "neutron-rpc-server"), "--config-file", str(self.config_file)]
        self.rpc_server = self._daemon("neutron-rpc-server", rpc_server, {})

    def _daemon(self, name: str, argv: list[str], env: Mapping[str, str]) -> Daemon:
        env = {**env, "TMPDIR": str(self.place)}
        return Daemon(name, self.namespace.argv(argv), self.place / f"{name}.log", env)

    def _start(self) -> None:
        self.mariadb = self._stack.enter_context(MariaDB())
        self._log("MariaDB")
        self.database_url = self.mariadb.new_url()
        self._configure()
        # Either takes five seconds. The broker starts in this thread: the kernel ends it with
        # the thread that started it (prctl(2), PR_SET_PDEATHSIG).
        with ThreadPoolExecutor(1) as beside:
            migration = beside.submit(self.run, "neutron-db-manage", "upgrade", "heads")
            self._stack.enter_context(self.rabbit)
            self._log("RabbitMQ")
            migration.result()
        self._log("database schema")
        if self.options.nova:
            self._stack.enter_context(self.nova)
        self._stack.callback(self.stop_server)
        self.start_server()
        self._log("API and RPC server")

    def start_server(self) -> None:
        """The API and the RPC server; wait until the API answers."""
        self.rpc_server.start()
        self.start_api()

    def start_api(self) -> None:
        """The API alone."""
        self.api.start()
        self.api.ready(self.client.answers, _READY_SECONDS)

    def kill_api(self) -> None:
        """With it go the casts that it has not sent yet."""
        self.client.close()
        self.api.kill()

    def stop_server(self) -> None:
        """Both, at once: they have nothing to lose."""
        self.client.close()
        for daemon in (self.api, self.rpc_server):
            daemon.kill()

    @contextlib.contextmanager
    def bus_away(self) -> Iterator[None]:
        """RabbitMQ is stopped, and started again."""
        self.rabbit.pause()
        try:
            yield
        finally:
            self.rabbit.resume()

    def reconfigure(self, options: Options) -> None:
        """What the server will read when it is started next."""
        self.options = options
        self._configure()

    def _configure(self) -> None:
        paths = Paths(self.place, PROGRAMS, self.rabbit.url)
        self.config_file.write_text(
            configuration.server_file(self.options, paths, self.database_url)
        )

    def run(self, program: str, *arguments: str) -> str:
        """What ``program`` prints that reads the server's configuration."""
        argv = [str(PROGRAMS / program), "--config-file", str(self.config_file), *arguments]
        return run(self.namespace.argv(argv), timeout=_PROGRAM_SECONDS)
