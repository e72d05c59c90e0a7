"""Takes the pictures of the status page that the documentation shows.

    python -m lab.screenshots [DIRECTORY]

DIRECTORY is doc/operator unless another one is named. The server's parts run here, on SQLite; what
its agents report is made up, so no root and no switch is needed. Debian's Chromium is.
"""

import base64
import datetime
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from agent_flows.errors import ErrorType
from agent_flows.report import FlowName, Step, TaskError, TaskOutcome, TaskState
from agent_flows.server.core import clock
from agent_flows.server.standalone.api.wsgi import WsgiServer
from lab.browser import chromium, shape
from lab.model import ingress, new_id
from lab.server_parts import FakeAgent, Server, running

WHERE = Path("doc/operator")
_TABLE_FULL = """\
OFPT_ERROR (OF1.4) (xid=0x9): OFPFMFC_TABLE_FULL
OFPT_FLOW_MOD (OF1.4) (xid=0x9): ADD table:82 priority=77,ct_state=+est-rel-rpl,tcp,reg5=0x7,\
tp_dst=443 cookie:0xaf10000700000002 actions=output:7"""
_DURATIONS = {
    "locate-interface": 0.0021,
    "raise-link": 0.0064,
    "provision-network": 0.0187,
    "apply-security-groups": 0.0412,
    "verify-security-groups": 0.0236,
    "bind-vlan": 0.0093,
    "verify-wiring": 0.0048,
}
_GROUP_TASKS = frozenset({"apply-security-groups", "verify-security-groups"})


def attempt(
    began: datetime.datetime, fails: str | None = None, error: TaskError | None = None
) -> tuple[TaskOutcome, ...]:
    """The tasks of an attempt to wire a port, up to the one that failed."""
    tasks = list[TaskOutcome]()
    for name, duration in _DURATIONS.items():
        step = Step.SECURITY_GROUPS if name in _GROUP_TASKS else Step.L2
        if fails in [task.name for task in tasks]:
            tasks.append(TaskOutcome(name, step, TaskState.PENDING))
            continue
        state = TaskState.FAILED if name == fails else TaskState.SUCCEEDED
        own = error if name == fails else None
        tasks.append(TaskOutcome(name, step, state, began, duration, own))
        began += datetime.timedelta(seconds=duration + 0.0004)
    return tuple(tasks)


@contextmanager
def cloud(directory: Path) -> Iterator[tuple[Server, Sequence[str]]]:
    """Three hosts with 40 ports, of which some are not in sync; and the ids of the ports."""
    with running(f"sqlite:///{directory / 'server.sqlite'}", api={"bind_port": 0}) as server:
        network, group = new_id(), new_id()
        server.put("networks", network, network_type="vlan", physical_network="physnet1",
                   segmentation_id=120)  # fmt: skip
        server.put("security-groups", group, name="web", security_group_rules=[ingress()])
        ports = [new_id() for _ in range(40)]
        for place, port in enumerate(ports):
            server.put(
                "ports", port,
                name=f"web-{place + 1}",
                network_id=network,
                mac_address=f"fa:16:3e:5b:00:{place:02x}",
                fixed_ips=[{"ip_address": f"10.20.0.{place + 10}"}],
                security_groups=[group],
                **{"binding:host_id": f"compute-{place % 3 + 1}"},
            )  # fmt: skip
        agents = [FakeAgent(server, f"compute-{number}") for number in (1, 2, 3)]
        _report(agents, ports)
        yield server, ports


def _report(agents: Sequence[FakeAgent], ports: Sequence[str]) -> None:
    now = clock.now()
    for number, agent in enumerate(agents):
        mine = ports[number::3]
        began = now - datetime.timedelta(minutes=52)
        agent.send(*[agent.report(port, tasks=attempt(began)) for port in mine])
    refused = TaskError(
        "FlowRefused", "the switch refused a flow: its table 82 is full", _TABLE_FULL
    )
    for tries in (1, 2, 3):
        began = now - datetime.timedelta(minutes=16 - 5 * tries)
        agents[1].send(
            *[
                agents[1].report(
                    port, tasks=attempt(began, "apply-security-groups", refused), attempt=tries
                )
                for port in ports[1:10:3]
            ]
        )
    away = TaskError(ErrorType.LINK_NOT_FOUND, "the link tap5b00060a does not exist")
    agents[0].send(
        agents[0].report(ports[6], tasks=attempt(now, "raise-link", away), flow=FlowName.WIRE)
    )
    tag = TaskError(ErrorType.DRIFT, "the tag is 999 instead of 2: another program changed it")
    drift = TaskOutcome("compare-switch", Step.L2, TaskState.FAILED, now, 0.004, tag)
    agents[2].send(agents[2].report(ports[2], FlowName.AUDIT, tasks=(drift,)))
    started_at = (now - datetime.timedelta(days=3, hours=2)).isoformat()
    busy = {
        "waiting": 3,
        "oldest": 4.2,
        "audit_age": 38.5,
        "troubles": {"openflow": "ovs-ofctl has run for 12 s, twice in the last minute"},
    }
    for agent in agents:
        more = busy if agent is agents[1] else {}
        state = {"waiting": 0, "unreported": 0, "audit_age": 21.0, **more}
        agent.beat(bridge="br-int", version="1.0.0", started_at=started_at, **state)


def take(directory: Path) -> Sequence[Path]:
    """The pictures, as files in ``directory``."""
    taken = []
    with tempfile.TemporaryDirectory() as place, cloud(Path(place)) as (server, ports):
        serving = WsgiServer(server.rest.app, server.conf)
        serving.start()
        try:
            with chromium() as browser:
                for name, path, width, height, dark in (
                    ("overview", "/", 900, 620, False),
                    ("port", f"/page/ports/{ports[1]}", 900, 690, False),
                    ("host", "/page/hosts/compute-2", 900, 620, True),
                ):
                    shape(browser, width, height, dark=dark, mobile=width < 500)
                    browser.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
                    browser.get(f"http://127.0.0.1:{serving.port}{path}")
                    picture = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
                    taken.append(directory / f"status-page-{name}.png")
                    taken[-1].write_bytes(base64.b64decode(picture["data"]))
        finally:
            serving.stop()
    return taken


def main(arguments: Sequence[str]) -> int:
    if len(arguments) > 1 or arguments[:1] == ["--help"]:
        print(__doc__)
        return 2
    for file in take(Path(arguments[0]) if arguments else WHERE):
        print(f"{file}: {file.stat().st_size // 1024} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
