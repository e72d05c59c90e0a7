"""A Neutron in a process of its own, and hosts whose agents a test plays."""

import itertools
import json
import select
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from agent_flows.neutron import rules_digest
from agent_flows.report import FlowName, FlowReport
from agent_flows.rpc import codec
from lab.model import flow_report

PROJECT = "8b4c6a1e0f5d4d6c9a7b2e3f4a5b6c7d"
_SECONDS = 60.0
_PROCESS = "tests.functional.neutron_server.neutron_process"
_ROOT = Path(__file__).parents[3]
_numbers = itertools.count(1)

Body = dict[str, Any]
Gating = Callable[..., None]
"""Runs ``agent-flows-manage gating`` with these words."""

_CONFIG = """\
[DEFAULT]
core_plugin = ml2
service_plugins = agent_flows
auth_strategy = noauth
transport_url = fake://
notify_nova_on_port_status_changes = true
notify_nova_on_port_data_changes = false
dhcp_agent_notification = false
state_path = {place}
[database]
connection = {url}
[quotas]
default_quota = -1
quota_network = -1
quota_subnet = -1
quota_port = -1
quota_security_group = -1
quota_security_group_rule = -1
[ml2]
mechanism_drivers = openvswitch,agent_flows
type_drivers = local,vxlan
tenant_network_types = vxlan
extension_drivers = port_security
[ml2_type_vxlan]
vni_ranges = 1:100000
"""


class Refused(Exception):
    """The API answered with an error."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(f"{status}: {body}")
        self.status, self.body = status, body


class Raised(Exception):
    """A command raised in Neutron's process."""


def configuration(place: Path, url: str) -> Path:
    made = place / "neutron.conf"
    made.write_text(_CONFIG.format(place=place, url=url))
    return made


class Neutron:
    """The process; every answer is awaited at most a minute."""

    def __init__(self, config_file: Path) -> None:
        self._log = config_file.with_suffix(".log")
        argv = [sys.executable, "-W", "ignore", "-m", _PROCESS, config_file]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=_ROOT,
            )

    def __enter__(self) -> Self:
        assert self._answer() == "ready"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def do(self, command: str, **named: Any) -> Any:
        """Run a command of :class:`neutron_process.Process`."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": command, **named}).encode() + b"\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        stdout = self._process.stdout
        assert stdout is not None
        ready, _, _ = select.select([stdout], [], [], _SECONDS)
        line = stdout.readline() if ready else b""
        if not line:
            raise AssertionError(f"Neutron's process does not answer; {self._end_of_log()}")
        answer = json.loads(line)
        if "raised" in answer:
            raise Raised(": ".join(answer["raised"]))
        return answer["answer"]

    def rest(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        project: str | None = None,
        roles: tuple[str, ...] = ("member", "reader"),
    ) -> Any:
        """As admin, or as a member of ``project``; raises :class:`Refused`."""
        status, answer = self.do(
            "rest", method=method, path=path, body=body, project=project, roles=roles
        )
        if status >= 500:
            raise AssertionError(f"{status}: {answer}; {self._end_of_log()}")
        if status >= 400:
            raise Refused(status, answer)
        return answer

    def _end_of_log(self) -> str:
        last = "\n".join(self._log.read_text().splitlines()[-60:])
        return f"its log ends with\n{last}"

    def create(self, collection: str, **fields: Any) -> Body:
        kind = collection.replace("-", "_").removesuffix("s")
        fields.setdefault("project_id", PROJECT)
        made: Body = self.rest("POST", f"/{collection}", {kind: fields})[kind]
        return made

    def port(self, port_id: str, **who: Any) -> Body:
        found: Body = self.rest("GET", f"/ports/{port_id}", **who)["port"]
        return found

    def change(self, port_id: str, **fields: Any) -> Body:
        changed: Body = self.rest("PUT", f"/ports/{port_id}", {"port": fields})["port"]
        return changed

    def state(self, port_id: str) -> tuple[str, str | None]:
        self.do("settle")
        port = self.port(port_id)
        return port["status"], port["sync_state"]

    def tasks(self, query: str = "", **who: Any) -> list[Body]:
        found: list[Body] = self.rest("GET", f"/tasks{query}", **who)["tasks"]
        return found


class Host:
    """A compute host: Neutron's agent there, and ours if it has the extension."""

    def __init__(self, neutron: Neutron, *extensions: str) -> None:
        self.neutron = neutron
        self.name = f"host-{next(_numbers)}"
        self._sequence = 0
        self.sends_state(*extensions)

    def sends_state(self, *extensions: str) -> None:
        self.neutron.do("state_report", host=self.name, extensions=list(extensions))

    def sends_state_without_extensions(self) -> None:
        """Its configuration lacks the key."""
        self.neutron.do("state_report", host=self.name, extensions=None)

    def plug(self, port_id: str) -> None:
        """As far as Neutron's own agent can see, the port is wired."""
        self.neutron.do("device", host=self.name, port=port_id, up=True)

    def unplug(self, port_id: str) -> None:
        self.neutron.do("device", host=self.name, port=port_id, up=False)

    def report(
        self,
        port_id: str,
        flow: FlowName = FlowName.WIRE,
        fails: str | None = None,
        **fields: Any,
    ) -> FlowReport:
        """An attempt at what Neutron desires now."""
        self._sequence += 1
        port = self.neutron.port(port_id)
        values = {
            "host": self.name,
            "resource_id": port_id,
            "flow": flow,
            "revision": port["revision_number"],
            "security_group_revisions": self._groups(port),
            "sequence": self._sequence,
            **fields,
        }
        return flow_report(fails=fails, **values)

    def _groups(self, port: Mapping[str, Any]) -> dict[str, int]:
        query = "/security-group-rules?security_group_id="
        found = {}
        for group in port["security_groups"]:
            rules = self.neutron.rest("GET", f"{query}{group}")["security_group_rules"]
            found[group] = rules_digest.of_rules(rules)
        return found

    def wire_form(self, report: FlowReport) -> Body:
        return codec.to_wire(report)

    def send(self, *reports: FlowReport, how: str = "report") -> Body:
        raw = [self.wire_form(report) for report in reports]
        answer: Body = self.neutron.do(how, host=self.name, reports=raw)
        return answer

    def reports(self, port_id: str, **fields: Any) -> None:
        """The server accepts a report on the port; wait for what follows from it."""
        answer = self.send(self.report(port_id, **fields))
        assert answer["rejected"] == {}
        self.neutron.do("settle")
