"""The steps of the demonstration: what agent_flows does, observed on a real switch."""

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lab.demo.cloud import BRIDGE, DemoCloud
from lab.demo.scenario import (
    CONNECTIONS,
    LISTENERS,
    MACHINES,
    NEIGHBOURS,
    SEVENTH,
    VLANS,
    Attempt,
    Machine,
)
from lab.model import Rule, ingress
from lab.probe import passes_anything
from lab.process import CommandFailed, Ended, wait_until
from lab.rest import Body, Refused
from lab.switch import RULES_INGRESS
from lab.vm import Vm, plug

_WAIT_SECONDS = 30.0
_POLL = 0.1
_SHORT_POLL = 0.02


@dataclasses.dataclass
class Document:
    """What ``--json`` prints."""

    ports: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    connections: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    failure: dict[str, Any] | None = None
    recovered: bool = False
    drift: dict[str, Any] | None = None
    seconds: float = 0.0


class Demo:
    """The steps on one cloud, logged line by line; ``problems`` is empty if all went as expected.

    The log goes to standard output, or to standard error if the document does (``as_json``).
    """

    def __init__(self, cloud: DemoCloud, *, as_json: bool) -> None:
        self._cloud = cloud
        self._as_json = as_json
        self._start = time.monotonic()
        self._document = Document()
        self._problems: list[str] = []
        self._started = False
        self._vms: dict[str, Vm] = {}

    def play(self) -> int:
        """Run all steps and remove everything; the exit code."""
        with self._cloud:
            return self._run()

    @contextlib.contextmanager
    def kept(self, end_by: str) -> Iterator[int]:
        """Run all steps; everything stays until the block ends. Gives the exit code.

        Raises SystemExit if the cloud did not start.
        """
        with self._cloud:
            code = self._run()
            if not self._started:
                raise SystemExit(code)
            self._print("", "It is still running. To look at it:")
            vms = self._vms.values()
            inside = [f"ip netns exec {vm.namespace.name} bash   # {vm.name}" for vm in vms]
            self._print(*(f"  {line}" for line in [*self._cloud.how_to_look(vms), *inside]))
            self._print("To end it:", f"  {end_by}")
            yield code

    def _run(self) -> int:
        try:
            self._cloud.start(self._log)
            self._started = True
            self._declare()
            self._wire_six()
            self._try_connections()
            self._refuse_the_seventh()
            self._recover()
            self._delete_flows_by_hand()
            self._cut()
        except (OSError, CommandFailed, Ended, Refused) as wrong:
            self._problem(str(wrong))
        self._document.seconds = round(time.monotonic() - self._start, 2)
        problems = len(self._problems)
        self._log("end", f"{problems} problems" if problems else "all as it should be")
        if self._as_json:
            print(json.dumps(dataclasses.asdict(self._document)), flush=True)
        return 1 if self._problems else 0

    # The steps.

    def _declare(self) -> None:
        for name, vlan in VLANS.items():
            self._cloud.network(name, vlan)
            self._log("network", f"{name}: vlan {vlan}")
        from_anywhere = ingress(protocol="tcp", port=80, remote_ip_prefix="0.0.0.0/0")
        self._cloud.group("web", [from_anywhere, ingress(protocol="icmp")])
        self._cloud.group("db", [self._service()])
        self._cloud.group("client", [])
        self._log("group", "web: tcp 80 and icmp from anywhere")
        self._log("group", "db: tcp 5432 from group web, nothing else")
        self._log("group", "client: nothing comes in")

    def _service(self) -> Rule:
        return ingress(protocol="tcp", port=5432, remote_group_id=self._cloud.group_id("web"))

    def _machine(self, machine: Machine) -> Vm:
        vm = self._cloud.machine(machine)
        self._vms[machine.name] = vm
        for port in LISTENERS[machine.group]:
            vm.listen(port)
        where = f"{machine.network}, {machine.address}, group {machine.group}"
        self._log("port", f"{machine.name}: {where}")
        return vm

    def _wire_six(self) -> None:
        machines = [self._machine(machine) for machine in MACHINES]
        started = time.monotonic()
        plug(self._cloud.switch, machines, BRIDGE)
        self._log("plug", f"{len(machines)} ports in one ovs-vsctl call")
        for vm in machines:
            port = self._cloud.api.wait_port(
                vm.port_id, _WAIT_SECONDS, status="ACTIVE", sync_state="IN_SYNC"
            )
            self._document.ports.append(self._port_entry(vm.name, port))
        self._log("active", f"all {len(machines)} after {time.monotonic() - started:.2f} s")
        for entry in self._document.ports:
            self._log("port", "{name}: {status}, {sync_state}, on {host}".format(**entry))
            self._tasks(entry["name"], self._cloud.api.tasks(entry["id"]))

    def _tasks(self, port: str, tasks: Sequence[Body]) -> None:
        for step in dict.fromkeys(task["step"] for task in tasks):
            done = [
                f"{task['name']} {(task['duration'] or 0) * 1000:.0f} ms"
                for task in tasks
                if task["step"] == step
            ]
            self._log("tasks", f"  {step}: {', '.join(done)}")
        for task in tasks:
            state = task["task_state"]
            self._expect(state == "SUCCEEDED", f"{port}: {task['name']} is {state}")
        self._expect(bool(tasks), f"{port} has no tasks")

    @staticmethod
    def _port_entry(name: str, port: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "id": port["id"],
            "name": name,
            "status": port["status"],
            "sync_state": port["sync_state"],
            "host": port["binding:host_id"],
        }

    def _try_connections(self) -> None:
        for attempt, allowed in CONNECTIONS.items():
            self._try(attempt, "pass" if allowed else "drop")

    def _try(self, attempt: Attempt, expected: str) -> None:
        """Pass means that the target itself answered."""
        client, server = self._vms[attempt.source], self._vms[attempt.target]
        if attempt.port is None:
            observed = "pass" if client.ping(server.ip) else "drop"
        else:
            answer = client.reach(server.ip, attempt.port)
            observed = {server.name: "pass", None: "drop"}.get(answer, f"answered by {answer}")
        self._record(attempt, expected, observed)

    def _record(self, attempt: Attempt, expected: str, observed: str) -> None:
        self._document.connections.append(
            {
                "from": attempt.source,
                "to": attempt.target,
                "protocol": attempt.protocol,
                "port": attempt.port,
                "expected": expected,
                "observed": observed,
            }
        )
        self._log("traffic", f"{attempt}: {observed} (should {expected})")
        self._expect(observed == expected, f"{attempt}: {observed}, should {expected}")

    def _refuse_the_seventh(self) -> None:
        in_use = len(self._cloud.switch.flows(BRIDGE, f"table={RULES_INGRESS}"))
        self._cloud.switch.set_flow_limit(BRIDGE, RULES_INGRESS, in_use)
        self._log("limit", f"table {RULES_INGRESS} is full now: {in_use} flows, no more")
        seventh = self._machine(SEVENTH)
        seventh.plug(BRIDGE)
        self._log("plug", f"{seventh.name}, whose flows the switch will refuse")
        failed = self._failed_task(seventh)
        port = self._cloud.api.wait_port(seventh.port_id, _WAIT_SECONDS, sync_state="OUT_OF_SYNC")
        self._log("port", f"{seventh.name}: {port['status']}, {port['sync_state']}")
        error = failed["error"]
        self._log("failed", f"{failed['name']}: {error['type']}: {error['message']}")
        for line in error["detail"].splitlines():
            self._log("", f"  {line}")
        others = [self._vms[name] for name in NEIGHBOURS]
        passed = passes_anything(seventh, others, service=5432)
        self._log("traffic", "; ".join(passed) or f"nothing passes {seventh.name}, either way")
        after = self._cloud.api.port(seventh.port_id)
        self._document.failure = {
            "port_id": seventh.port_id,
            "status": after["status"],
            "sync_state": after["sync_state"],
            "passed_traffic": bool(passed),
            "task": self._task_entry(failed),
        }
        self._expect(not passed, f"{seventh.name} passes traffic: {'; '.join(passed)}")
        self._expect(after["status"] == "DOWN", f"{seventh.name} is {after['status']}")
        self._expect(after["sync_state"] == "OUT_OF_SYNC", f"it is {after['sync_state']}")
        self._expect(
            "TABLE_FULL" in error["detail"], "the task does not contain the switch's error"
        )

    def _failed_task(self, vm: Vm) -> Body:
        def failed_tasks() -> list[Body]:
            return self._cloud.api.tasks(vm.port_id, "FAILED")

        return wait_until(failed_tasks, _WAIT_SECONDS, f"a failed task of {vm.name}", poll=_POLL)[0]

    @staticmethod
    def _task_entry(task: Body) -> dict[str, Any]:
        error = task["error"]
        return {
            "name": task["name"],
            "task_state": task["task_state"],
            "error": {key: error[key] for key in ("type", "message", "detail")},
        }

    def _recover(self) -> None:
        seventh = self._vms[SEVENTH.name]
        self._cloud.switch.lift_flow_limit(BRIDGE, RULES_INGRESS)
        self._log("limit", "lifted; the agent tries again by itself")
        port = self._cloud.api.wait_port(
            seventh.port_id, _WAIT_SECONDS, status="ACTIVE", sync_state="IN_SYNC"
        )
        self._document.recovered = True
        self._log("port", f"{seventh.name}: {port['status']}, {port['sync_state']}")
        self._try(Attempt("web1", seventh.name, "tcp", 5432), "pass")

    def _delete_flows_by_hand(self) -> None:
        web = self._vms["web1"]
        switch = self._cloud.switch
        match = f"table={RULES_INGRESS},reg5={switch.ofport(web.tap)}"
        before = len(switch.flows(BRIDGE, match))
        switch.ofctl("del-flows", switch.management(BRIDGE), match)
        deleted = time.monotonic()
        self._log("by hand", f"ovs-ofctl del-flows {BRIDGE} {match}: {before} flows of {web.name}")

        def drifts() -> list[Body]:
            tasks = self._cloud.api.tasks(web.port_id, "FAILED")
            return [task for task in tasks if task["flow"] == "audit"]

        found = wait_until(drifts, _WAIT_SECONDS, f"drift of {web.name}", poll=_SHORT_POLL)[0]
        told = time.monotonic() - deleted
        self._log("drift", f"{found['name']}: {found['error']['message']}")
        self._log("drift", f"  {found['error']['detail'].splitlines()[0]}")
        port = self._cloud.api.wait_port(web.port_id, _WAIT_SECONDS, sync_state="IN_SYNC")
        repaired = time.monotonic() - deleted
        self._log(
            "port",
            f"{web.name}: {port['status']}, {port['sync_state']}; found after {told:.2f} s, "
            f"repaired after {repaired:.2f} s",
        )
        self._document.drift = {
            "port_id": web.port_id,
            "told_seconds": round(told, 3),
            "repaired_seconds": round(repaired, 3),
            "task": self._task_entry(found),
        }
        self._expect(port["status"] == "ACTIVE", f"{web.name} is {port['status']}")
        after = len(switch.flows(BRIDGE, match))
        self._expect(after == before, f"{after} of the {before} flows are back")
        self._try(Attempt("client", web.name, "tcp", 80), "pass")

    def _cut(self) -> None:
        web, db = self._vms["web1"], self._vms["db1"]
        connection = web.open(db.ip, 5432)
        self._expect(connection.ask() == db.name, "the connection web1 -> db1 does not work")
        self._log("traffic", "web1 -> db1 tcp 5432: a connection is established")
        self._cloud.remove_rule("db", self._service())
        self._log("group", "db: the rule for tcp 5432 is removed")
        started = time.monotonic()
        wait_until(
            lambda: connection.ask(timeout=0.5) is None, _WAIT_SECONDS, "the connection is cut"
        )
        self._log("traffic", f"web1 -> db1 is silent {time.monotonic() - started:.1f} s later")
        # Cut for good, not just slow: TCP would have sent it again by then.
        observed = "cut" if connection.ask(timeout=1.5) is None else "pass"
        self._record(Attempt(web.name, db.name, "tcp", 5432), "cut", observed)

    # The output.

    def _log(self, subject: str, text: str) -> None:
        self._print(f"{time.monotonic() - self._start:6.2f} s  {subject:<8} {text}")

    def _print(self, *lines: str) -> None:
        print("\n".join(lines), file=sys.stderr if self._as_json else sys.stdout, flush=True)

    def _expect(self, as_expected: bool, text: str) -> None:
        if not as_expected:
            self._problem(text)

    def _problem(self, text: str) -> None:
        self._problems.append(text)
        self._log("WRONG", text)
