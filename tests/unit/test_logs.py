"""Lines of the log carry port, host, flow and attempt: in their text, and as fields of JSON."""

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent_flows.report import FlowName
from lab.model import flow_report

REPORT = flow_report("bind-vlan", attempt=3)

# Logs the failure of a report as the reconciler does, and a traceback.
_LOGS = """
import sys
from unittest.mock import Mock
from agent_flows.engine.reconciler import Reconciler, LOG
from agent_flows.engine.runner import Runner
from agent_flows.supervision import Backoff
from lab.model import flow_report
made = Reconciler(Mock(), Runner("host-1"), backoff=Backoff(1.0, 1.0), max_batch=1)
made._log_failures([flow_report("bind-vlan", attempt=3)])
try:
    raise ValueError("two\\nlines, \\x1b[31m red")
except ValueError:
    LOG.exception("Could not do it: \\x1b[31m")
"""
_OURS = """
from oslo_config import cfg
from agent_flows import process
process.prepare(sys.argv[1:], "agent-flows-test", cfg.ConfigOpts())
"""
# As Neutron's programs begin.
_NEUTRONS = """
from oslo_config import cfg
from oslo_log import log
from neutron.common import config
config.register_common_config_options()
config.init(sys.argv[1:])
config.setup_logging()
"""


def lines(beginning: str, *argv: str) -> list[str]:
    program = f"import sys\n{beginning}\n{_LOGS}"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *argv],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if "agent_flows.engine" in line]


@pytest.mark.parametrize("beginning", [_OURS, _NEUTRONS], ids=["ours", "Neutron's"])
def test_json_has_the_ids_as_fields(beginning: str, tmp_path: Path) -> None:
    failed, raised = (json.loads(line) for line in lines(beginning, "--use-json"))
    fields: dict[str, Any] = failed["extra"]
    assert fields["host"] == REPORT.host
    assert (fields["flow"], fields["attempt"], fields["task"]) == ("wire", 3, "bind-vlan")
    assert fields["port"] in failed["message"]
    assert failed["levelname"] == "ERROR"
    assert "ValueError" in str(raised["traceback"])


def test_text_has_the_ids_and_no_control_characters() -> None:
    failed, raised, *_ = lines(_OURS)
    assert f"on host {REPORT.host}: bind-vlan failed in wire, attempt 3" in failed
    assert "\x1b" not in raised
    assert "\\x1b[31m" in raised


def test_a_rejected_report_is_logged_with_its_ids(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from agent_flows.reporting.outbox import Outbox
    from agent_flows.reporting.reporter import Reporter
    from agent_flows.rpc.answers import Receipt
    from tests.unit.reporting.test_reporter import Server

    outbox = Outbox(tmp_path / "o", 10)
    outbox.put([REPORT])
    server = Server(lambda reports: Receipt(0, accepted=[], rejected={REPORT.id: "too old"}))
    Reporter(outbox, server).send_once()
    (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    for name, value in REPORT.log_fields.items():
        assert getattr(record, name) == value
        assert str(value) in record.getMessage()


def test_a_report_of_a_group_names_the_group() -> None:
    from agent_flows.report import ResourceType

    report = flow_report(flow=FlowName.REFRESH, resource_type=ResourceType.SECURITY_GROUP)
    assert report.log_fields["security_group"] == report.resource_id
    assert "port" not in report.log_fields
