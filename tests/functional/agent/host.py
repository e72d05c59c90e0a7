"""An agent in this process, in a switch's namespace, and a server that is plain Python."""

import dataclasses
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import oslo_messaging
from oslo_config import cfg

from agent_flows import conf as options
from agent_flows.agent.service import AgentService
from agent_flows.openflow import cookie
from agent_flows.report import FlowName, FlowReport, Trouble
from agent_flows.rpc import transport
from agent_flows.rpc.answers import Held, Receipt
from agent_flows.rpc.desired import Known, Update, whole
from agent_flows.rpc.revisions import Revisions
from agent_flows.rpc.server import AgentClient
from agent_flows.spec import (
    AddressGroupSpec,
    DesiredState,
    NetworkSpec,
    PortSpec,
    Refused,
    SecurityGroupSpec,
)
from lab import model
from lab.model import HOST, addresses_of
from lab.process import wait_until
from lab.switch import Switch
from lab.vm import Vm


class FakeServer:
    """Desired state as a test sets it, and every report it received."""

    def __init__(self) -> None:
        self.ports: dict[str, PortSpec] = {}
        self.groups: dict[str, SecurityGroupSpec] = {}
        self.address_groups: dict[str, AddressGroupSpec] = {}
        self.refused: dict[str, Refused] = {}
        self.reports: list[FlowReport] = []
        self.states: list[Mapping[str, Any]] = []
        self.asked: list[Collection[str] | None] = []
        self.silent = False
        self.gives_specs = True
        self.compares = False
        self.awaited: tuple[str, ...] = ()
        self._changed = threading.Condition()

    def report(self, reports: Sequence[FlowReport]) -> Receipt:
        self._speak()
        with self._changed:
            self.reports += reports
            self._changed.notify_all()
        return Receipt(0, accepted=[item.id for item in reports])

    def get_ports(self, port_ids: Collection[str] | None = None) -> DesiredState:
        self._speak()
        if not self.gives_specs:
            raise oslo_messaging.MessagingTimeout("no answer to get_ports")
        self.asked.append(port_ids)
        return DesiredState(
            {
                p: s
                for p, s in self.ports.items()
                if (port_ids is None or p in port_ids) and p not in self.refused
            },
            {g: s for g, s in self.groups.items() if g not in self.refused},
            dict(self.address_groups),
            dict(self.refused),
        )

    def get_desired(self, port_ids: Collection[str], known: Known) -> Update:
        return whole(self.get_ports(list(port_ids) or None))

    def get_bound(self) -> Collection[str]:
        self._speak()
        self.asked.append(None)
        return self.ports.keys()

    def heartbeat(self, state: Mapping[str, Any]) -> Held:
        self._speak()
        self.states.append(state)
        return Held(0, desired=self.get_revisions().digest() if self.compares else "")

    def get_revisions(self) -> Revisions:
        self._speak()
        groups = {
            group
            for port in self.ports.values()
            for group in port.security_groups
            if port.port_security_enabled
        }
        return Revisions(
            {port.id: port.revision for port in self.ports.values()},
            {id_: group.revision for id_, group in self.groups.items() if id_ in groups},
            self.awaited,
        )

    def _speak(self) -> None:
        if self.silent:
            raise oslo_messaging.MessagingTimeout("no answer")

    def of(self, port_id: str, flow: FlowName | None = None) -> list[FlowReport]:
        return [
            item
            for item in self.reports
            if item.resource_id == port_id and flow in (None, item.flow)
        ]

    def wait_for(
        self, check: Callable[[], Any], seconds: float = 10, what: str = "a report"
    ) -> Any:
        with self._changed:
            assert self._changed.wait_for(check, seconds), (
                f"{what} did not come; reports: "
                f"{[(r.resource_id, r.flow.value, r.failed) for r in self.reports]}"
            )
        return check()

    def wait_wired(self, port_ids: Collection[str], seconds: float = 10) -> None:
        """Until the last report of each port shows it wired as desired now."""

        def wired() -> bool:
            last = {item.resource_id: item for item in self.reports}
            return all(
                port_id in last
                and last[port_id].failed is None
                and last[port_id].flow is not FlowName.UNWIRE
                and last[port_id].revision == self.ports[port_id].revision
                for port_id in port_ids
            )

        self.wait_for(wired, seconds, f"success of {list(port_ids)}")

    def wait_failed(self, port_id: str, task: str, seconds: float = 10) -> FlowReport:
        def failed() -> FlowReport | None:
            return next(
                (r for r in self.of(port_id) if r.failed is not None and r.failed.name == task),
                None,
            )

        report: FlowReport = self.wait_for(failed, seconds, f"failure of {port_id} in {task}")
        return report


class Host:
    """A switch, its server and the agent between them, started and stopped by the test."""

    def __init__(self, switch: Switch, state_dir: Path) -> None:
        self.switch = switch
        self.server = FakeServer()
        self.mappings: dict[str, str] = {}
        self._state_dir = state_dir
        self._agent: AgentService | None = None
        # oslo.messaging reads some of its options from the global object only.
        self._conf = options.register(cfg.CONF)
        self._conf([], default_config_files=[])
        self._bus = transport.get_transport(self._conf, transport.EMBEDDED_URL)
        self.casts = AgentClient(self._bus)

    def start(self, **overrides: object) -> None:
        values: dict[str, object] = {
            "host": HOST,
            "datapath_type": "netdev",
            "ovsdb_connection": self.switch.database,
            "ovs_run_dir": str(self.switch.run_dir),
            "state_dir": str(self._state_dir),
            "bridge_mappings": self.mappings,
            "heartbeat_interval": 0.1,
            "retry_initial": 0.2,
            "retry_max": 0.5,
            "metrics_port": 0,
            **overrides,
        }
        for name, value in values.items():
            self._conf.set_override(name, value, options.AGENT)
        self._agent = AgentService(self._conf, self._bus, self.server)
        # Threads are born into the namespace of who starts them.
        with self.switch.namespace.entered():
            self._agent.start()

    def start_once(self) -> None:
        """Start, unless it runs, and wait until it can work."""
        if self._agent is None:
            self.start()
            self.ready()

    def stop(self) -> None:
        if self._agent is not None:
            self._agent.stop()
            self._agent.wait()
            self._agent = None

    def close(self) -> None:
        self.stop()
        self._bus.cleanup()
        self._conf.clear()

    def ready(self) -> None:
        """Until the agent has looked at the whole host and has nothing left to do; a physical
        network it cannot reach does not keep it from the others."""
        asked = len(self.server.states)
        self.until(lambda: None in self.server.asked, "the agent asks for all ports")

        def idle() -> bool:
            last = self.server.states[asked + 1 :][-1:]
            return any(
                state["troubles"].keys() <= {Trouble.UPLINK} and state["waiting"] == 0
                for state in last
            )

        self.until(idle, "the agent is idle")

    def until(self, check: Callable[[], Any], what: str, seconds: float = 10) -> Any:
        return wait_until(check, seconds, what)

    # What the heartbeats contain.

    def troubles(self) -> Mapping[str, str]:
        """Of the last heartbeat: source to line."""
        troubles: Mapping[str, str] = (
            self.server.states[-1]["troubles"] if self.server.states else {}
        )
        return troubles

    def trouble(self, source: Trouble, seconds: float = 5) -> str:
        """The line of that trouble, waited for; however short it was."""
        seen = len(self.server.states)

        def line_of() -> str | None:
            lines = (state["troubles"].get(source) for state in self.server.states[seen:])
            return next((line for line in lines if line), None)

        line: str = self.until(line_of, f"trouble {source}", seconds)
        return line

    def without_trouble(self, seconds: float = 10) -> None:
        self.until(lambda: not self.troubles(), "no trouble is left", seconds)

    # What the switch has.

    def port_flows(self, ofport: int | None = None) -> list[str]:
        """Flows of ports (of the one with ``ofport``), known by their cookie."""
        return [
            line
            for line in self.switch.flows("br-int")
            for value in [int(line.partition("cookie=")[2].partition(",")[0], 16)]
            if cookie.is_ours(value)
            and cookie.kind(value) == cookie.Kind.PORT
            and ofport in (None, cookie.serial(value))
        ]

    def tag(self, name: str) -> int:
        """The tag of a port; 0 if it has none."""
        tag = self.switch.vsctl("--if-exists", "get", "Port", name, "tag").strip()
        return int(tag) if tag.isdecimal() else 0

    def local_vlans(self) -> dict[str, int]:
        """Network id to VLAN, as recorded in OVSDB."""
        words = self.switch.vsctl("get", "Bridge", "br-int", "external_ids").strip("{}")
        pairs = [word.split("=") for word in words.split(", ") if word]
        return {
            key.removeprefix("agent-flows-vlan-"): int(value.strip('"')) for key, value in pairs
        }

    def plug_quietly(self, *vms: Vm, interface_type: str = "") -> None:
        """Plug without waiting for the switch's opinion; all in one transaction."""
        words = ["--no-wait"]
        for vm in vms:
            words += ["--", "add-port", "br-int", vm.tap, "--", "set", "Interface", vm.tap]
            words += [f"external_ids:iface-id={vm.port_id}"]
            words += [f"type={interface_type}"] * bool(interface_type)
        self.switch.vsctl(*words)

    def bind(self, vm: Vm, network: NetworkSpec, groups: Sequence[SecurityGroupSpec]) -> PortSpec:
        """Make the VM's port known to the server."""
        spec = model.port(
            *groups,
            id=vm.port_id,
            network=network,
            mac_address=vm.mac,
            fixed_ips=addresses_of(vm),
        )
        self.server.groups |= {group.id: group for group in groups}
        self.server.ports[vm.port_id] = spec
        return spec

    def change(self, vm: Vm, **changes: object) -> None:
        """A change of the port, without a word to the agent."""
        spec = self.server.ports[vm.port_id]
        self.server.ports[vm.port_id] = dataclasses.replace(
            spec, revision=spec.revision + 1, **changes
        )
