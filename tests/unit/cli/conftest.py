"""The real API on a real database, and commands run against it as from a shell."""

import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from wsgiref.simple_server import make_server

import pytest
from oslo_config import cfg

from agent_flows import conf as options
from agent_flows.cli import app
from agent_flows.server.core import database, gate
from agent_flows.server.core.agents import Rules
from agent_flows.server.core.casts import Caster
from agent_flows.server.core.metrics import Metrics
from agent_flows.server.core.store import Store
from agent_flows.server.standalone import schema
from agent_flows.server.standalone.api.app import application
from agent_flows.server.standalone.directory import OwnDirectory
from tests.unit.cli.stage import CLOUD, HOST, Agents, Quiet, Ran, Run, Server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    conf = options.register(cfg.ConfigOpts())
    database.register(conf)
    conf([], default_config_files=[], default_config_dirs=[])
    conf.set_override("connection", f"sqlite:///{tmp_path}/server.sqlite", "database")
    conf.set_override("max_limit", 10, options.API)
    base = database.Database(conf)
    schema.upgrade(base)
    agents, metrics = Agents(), Metrics()
    caster = Caster(agents, metrics)
    web = make_server(
        "127.0.0.1", 0, application(conf, base, caster, metrics, {}), handler_class=Quiet
    )
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    store = Store(base, OwnDirectory(), caster, metrics, gate.Settings(), rules=Rules())
    yield Server(f"http://127.0.0.1:{web.server_port}", store, agents)
    web.shutdown()
    thread.join()
    web.server_close()
    caster.stop()
    base.close()


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs ``agent-flows`` with these words."""
    for name in ("AGENT_FLOWS_URL", "OS_AUTH_URL", "OS_AUTH_TYPE"):
        monkeypatch.delenv(name, raising=False)
    root = logging.getLogger()

    def run(*words: str) -> Ran:
        handlers, level = list(root.handlers), root.level
        try:
            code = app.main(words)
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)
        seen = capsys.readouterr()
        return Ran(code, seen.out, seen.err)

    return run


@pytest.fixture
def run(shell: Run, server: Server) -> Run:
    return lambda *words: shell("--url", server.url, *words)


@pytest.fixture
def cloud(run: Run, server: Server, tmp_path: Path) -> None:
    """One network, one group, one port on :data:`HOST`, whose agent lives and saw no interface."""
    server.store.take_heartbeat(HOST, {})
    file = tmp_path / "cloud.json"
    file.write_text(json.dumps(CLOUD))
    assert run("apply", str(file)).code == 0
