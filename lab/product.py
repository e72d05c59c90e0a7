"""agent_flows itself, as an operator would run it, beside a switch of the lab."""

import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from lab.process import Daemon, run
from lab.rest import DEFAULT_PORT, Api
from lab.switch import Switch, resident_mib
from lab.unprivileged import User

BIN = Path(sys.executable).parent
PROGRAM = BIN / "agent-flows"
_READY_SECONDS = 30
MEMORY_BUS = "kombu+memory://"
"""Of server and agent in one process."""

Options = Mapping[str, Mapping[str, object]]


class Site:
    """A host with a switch, a configuration file and the programs that read it.

    ``options`` are added to the configuration, section by section. The programs run as ``user``,
    by default as root.
    """

    def __init__(
        self,
        switch: Switch,
        host: str,
        *,
        transport_url: str = MEMORY_BUS,
        bridge_mappings: Mapping[str, str] | None = None,
        options: Options | None = None,
        user: User | None = None,
    ) -> None:
        self.switch = switch
        self._user = user
        self.host = host
        self.api = Api(switch.namespace)
        self.directory = Path(tempfile.mkdtemp(prefix=f"{switch.namespace.name}-site-"))
        self.state_dir = self.directory / "state"
        self.config_file = self.directory / "agent_flows.conf"
        self.database = self.directory / "server.sqlite"
        mappings = ",".join(f"{net}:{bridge}" for net, bridge in (bridge_mappings or {}).items())
        sections: dict[str, dict[str, object]] = {
            "DEFAULT": {"transport_url": transport_url},
            "database": {"connection": f"sqlite:///{self.database}"},
            "agent_flows": {
                "host": host,
                "datapath_type": "netdev",
                "ovsdb_connection": switch.database,
                "ovs_run_dir": switch.run_dir,
                "state_dir": self.state_dir,
                **({"bridge_mappings": mappings} if mappings else {}),
            },
            "agent_flows_api": {"bind_port": DEFAULT_PORT},
        }
        for section, values in (options or {}).items():
            sections.setdefault(section, {}).update(values)
        self.config_file.write_text(as_text(sections))
        if user is not None:
            self.state_dir.mkdir()
            user.owns(self.directory)
        self.all_in_one = self._daemon("agent-flows", "all-in-one")
        self.server = self._daemon("agent-flows-server")
        self.agent = self._daemon("agent-flows-agent")

    def _daemon(self, program: str, *words: str) -> Daemon:
        argv = [str(BIN / program), *words, "--config-file", str(self.config_file)]
        if self._user is not None:
            argv = self._user.argv(argv, self.directory / "kept")
        log = self.directory / f"{'-'.join([program, *words])}.log"
        return Daemon(program, self.switch.namespace.argv(argv), log)

    def start_all_in_one(self) -> None:
        self.all_in_one.start()
        self.all_in_one.ready(self.api.answers, _READY_SECONDS)

    def start_server(self) -> None:
        """Bring the database up to date and start the server."""
        manage = [str(BIN / "agent-flows-manage"), "--config-file", str(self.config_file)]
        run(self.switch.namespace.argv([*manage, "db", "upgrade"]), timeout=60)
        self.server.start()
        self.server.ready(self.api.answers, _READY_SECONDS)

    def start_agent(self) -> None:
        """Start the agent and wait until the server has a heartbeat of it."""
        self.agent.start()
        self.agent.ready(self.agent_alive, _READY_SECONDS)

    def agent_alive(self) -> bool:
        agents = self.api.find("agents")
        return any(agent["host"] == self.host and agent["alive"] for agent in agents)

    def memory_mib(self, daemon: Daemon) -> float:
        return resident_mib(daemon.pid)

    def stop(self) -> None:
        """End what was started, and remove its files."""
        self.api.close()
        for daemon in (self.all_in_one, self.agent, self.server):
            daemon.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def as_text(sections: Mapping[str, Mapping[str, object]]) -> str:
    """A configuration file."""
    lines: list[str] = []
    for section, values in sections.items():
        lines += [f"[{section}]", *(f"{name} = {value}" for name, value in values.items()), ""]
    return "\n".join(lines)
