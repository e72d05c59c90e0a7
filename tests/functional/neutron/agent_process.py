"""A process with Neutron's real integration bridge, os-ken controller included, and our driver.

A process of its own, for the controller's threads never end. It runs inside
the switch's namespace, where the switch finds its controller, and answers each
line of JSON on standard input with one on standard output.
"""

import importlib.metadata
import json
import os
import select
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

from agent_flows import threads

threads.prefer()

# The module of the agent's program comes first: that of Neutron 26 makes all threads eventlet's.
[_program] = importlib.metadata.entry_points(
    group="console_scripts", name="neutron-openvswitch-agent"
)
_program.load()

from neutron import privileged  # noqa: E402
from neutron.plugins.ml2.drivers.openvswitch.agent.openflow.native import br_int  # noqa: E402
from neutron_lib.callbacks import events, registry, resources  # noqa: E402
from os_ken import cfg as os_ken_cfg  # noqa: E402
from os_ken.base import app_manager  # noqa: E402
from oslo_config import cfg  # noqa: E402

from agent_flows.neutron.agent.firewall_driver import AgentFlowsFirewallDriver  # noqa: E402
from agent_flows.neutron.interfaces import locate  # noqa: E402
from agent_flows.neutron.reporting import Reporting  # noqa: E402
from agent_flows.openflow import cookie  # noqa: E402
from agent_flows.report import FlowReport  # noqa: E402
from tests.functional.neutron.configuration import configure  # noqa: E402

_NATIVE = "neutron.plugins.ml2.drivers.openvswitch.agent.openflow.native"


class Bridge(br_int.OVSIntegrationBridge):  # type: ignore[misc]  # Neutron publishes no types
    """Counts our flows whenever Neutron is about to install its default flows."""

    ours_at_opening = 0

    def setup_default_table(self, *args: Any, **kwargs: Any) -> None:
        cookies = [flow.cookie for flow in self.dump_flows()]
        self.ours_at_opening = sum(map(cookie.is_ours, cookies))
        super().setup_default_table(*args, **kwargs)


class Agent:
    """What the agent does with its bridge at its start and after a restart of Open vSwitch."""

    def __init__(self, bridge: str) -> None:
        manager = app_manager.AppManager.get_instance()
        manager.load_apps(["os_ken.app.ofctl.service", f"{_NATIVE}.base_oskenapp"])
        manager.instantiate_apps(**manager.create_contexts())
        app = manager.applications["BaseNeutronAgentOSKenApp"]
        self.bridge = Bridge(bridge, "dummy", os_ken_app=app)
        self.setup_integration_br()
        self.driver = AgentFlowsFirewallDriver(integration_bridge=self.bridge)
        self.wired: set[str] = set()
        self.driver.report_to(Reporting(deliver=self._note))

    def setup_integration_br(self) -> None:
        self.bridge.create()
        self.bridge.set_secure_mode()
        self.bridge.setup_controllers(cfg.CONF)
        self.bridge.setup_default_table()

    def wire(self, groups: dict[str, Any], ports: list[dict[str, Any]]) -> list[bool]:
        with self.driver.defer_apply():
            for group_id, rules in groups.items():
                self.driver.update_security_group_rules(group_id, rules)
            for port in ports:
                self.driver.prepare_port_filter(port)
        return [port["device"] in self.wired for port in ports]

    def _note(self, reports: Sequence[FlowReport]) -> None:
        self.wired |= {report.resource_id for report in reports if report.failed is None}

    def error_of(self, port_id: str) -> list[str]:
        """Type and message of what keeps the port from being found; empty if nothing does."""
        error = locate(self.bridge, [port_id]).errors.get(port_id)
        return [] if error is None else [error.type, error.message]

    def cleanup_flows(self) -> None:
        self.bridge.cleanup_flows()

    def check_canary_table(self) -> int:
        return int(self.bridge.check_canary_table())

    def recover(self) -> int:
        """As _handle_ovs_restart; how many flows of ours there were when the bridge opened."""
        self.setup_integration_br()
        registry.publish(resources.AGENT, events.OVS_RESTARTED, self, payload=None)
        return self.bridge.ours_at_opening


def requests() -> Iterator[str]:
    """Lines of standard input; other threads run while none is there, eventlet's as well."""
    while select.select([sys.stdin], [], []) and (line := sys.stdin.readline()):
        yield line


def main(bridge: str, database: str, run_dir: str) -> None:
    configure(database, run_dir)
    # Neutron's privileged part is this process.
    privileged.default.set_client_mode(False)
    # A request of Neutron's that meets a closing connection may never be answered, for 300 s.
    cfg.CONF.set_override("of_request_timeout", 5, "OVS")
    os_ken_cfg.CONF(project="os_ken", args=[])
    os_ken_cfg.CONF.ofp_listen_host = cfg.CONF.OVS.of_listen_address
    os_ken_cfg.CONF.ofp_tcp_listen_port = cfg.CONF.OVS.of_listen_port
    agent = Agent(bridge)
    print(json.dumps("ready"), flush=True)
    for line in requests():
        name, arguments = json.loads(line)
        print(json.dumps(getattr(agent, name)(*arguments)), flush=True)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    # After any error the controller's threads would keep the process.
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    os._exit(0)
