"""agent-flows-server on a RabbitMQ and a database, without a switch or a namespace."""

import shutil
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path

from lab.databases import DatabaseServer
from lab.lifetime import Lifetime
from lab.namespace import mark
from lab.process import Daemon, free_port, run
from lab.product import BIN, as_text
from lab.rabbit import Rabbit
from lab.rest import Api

_READY_SECONDS = 60
_STOP_SECONDS = 60


class StandaloneServer(Lifetime):
    """The server in ``workers`` processes; ``options`` are those of ``[agent_flows_server]``."""

    def __init__(
        self,
        rabbit: Rabbit,
        database: DatabaseServer,
        workers: int,
        options: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__()
        self._rabbit = rabbit
        self._options = {"workers": workers, **(options or {})}
        self.database_url = database.new_url()
        self.port = free_port()
        self.api = Api(port=self.port)
        self.directory = Path()

    def _start(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=f"{mark()}server-"))
        self._stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self.config_file = self.directory / "agent_flows.conf"
        sections: dict[str, dict[str, object]] = {
            "DEFAULT": {"transport_url": self._rabbit.url},
            "database": {"connection": self.database_url},
            "agent_flows_server": self._options,
            "agent_flows_api": {"bind_port": self.port},
        }
        self.config_file.write_text(as_text(sections))
        words = ["--config-file", str(self.config_file)]
        run([str(BIN / "agent-flows-manage"), *words, "db", "upgrade"], timeout=60)
        program = str(BIN / "agent-flows-server")
        self.daemon = Daemon("agent-flows-server", [program, *words], self.directory / "log")
        self.daemon.start()
        self._stack.callback(self.daemon.stop, _STOP_SECONDS)
        self._stack.callback(self.api.close)
        self.daemon.ready(self.api.answers, _READY_SECONDS)

    def workers(self) -> list[int]:
        """The process ids of the workers, or of the only process."""
        # Each thread has the processes that it started.
        threads = Path(f"/proc/{self.daemon.pid}/task").glob("*/children")
        return sorted(int(pid) for each in threads for pid in each.read_text().split()) or [
            self.daemon.pid
        ]

    def interrupt(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal that ends it; the exit code."""
        return self.daemon.end(number, _STOP_SECONDS)
