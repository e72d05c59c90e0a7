"""``tools/neutron``: starts a Neutron with agent_flows in it, and ends it again."""

import argparse
import contextlib
import dataclasses
import sys
import time
from collections.abc import Iterator

from lab.background import Background, until_signalled
from lab.demo.in_neutron import InNeutron
from lab.demo.run import Demo
from lab.leftovers import sweep
from lab.neutron.configuration import (
    API_PORT,
    AgentOptions,
    Options,
    Sections,
    with_agent_flows,
)
from lab.neutron.plugging import BRIDGE
from lab.neutron.stack import Neutron
from lab.process import CommandFailed, Ended

_BACKGROUND = Background("neutron", "tools/neutron down")


def main() -> int:
    arguments = _parser().parse_args()
    if arguments.command == "down":
        return _BACKGROUND.stop()
    if _BACKGROUND.refuses():
        return 1
    sweep()
    return until_signalled(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command == "up":
        options = _options(arguments)
        return _BACKGROUND.keep(lambda: _running(options))
    as_json: bool = arguments.json
    if arguments.keep:
        return _BACKGROUND.keep(lambda: Demo(InNeutron(), as_json=as_json).kept(_BACKGROUND.end_by))
    return Demo(InNeutron(), as_json=as_json).play()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tools/neutron", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start a Neutron and leave it running")
    commands.add_parser("down", help="end what `up`, or `demo --keep`, left running")
    demo = commands.add_parser(
        "demo", help="run the quickstart's demonstration in a Neutron of its own"
    )
    demo.add_argument(
        "--json", action="store_true", help="print one document; the log goes to stderr"
    )
    demo.add_argument("--keep", action="store_true", help="leave it running")
    up.add_argument("--host", action="append", help="a compute host; may be repeated (compute-1)")
    up.add_argument("--plain", action="store_true", help="without agent_flows")
    for part in ("firewall-driver", "agent-extension", "mechanism-driver", "service-plugin"):
        one = part == "firewall-driver"
        up.add_argument(
            f"--{part}",
            action="store" if one else "append",
            help="instead of the usual one" if one else "instead of the usual; may be repeated",
        )
    for side in ("server", "agent"):
        up.add_argument(
            f"--{side}-option",
            action="append",
            default=[],
            type=_setting,
            metavar="SECTION.NAME=VALUE",
            help=f"a line for the {side}'s configuration file; may be repeated",
        )
    return parser


def _setting(text: str) -> tuple[str, str, str]:
    name, equals, value = text.partition("=")
    section, dot, option = name.rpartition(".")
    if not (equals and dot and section and option):
        raise argparse.ArgumentTypeError(f"{text!r} is not SECTION.NAME=VALUE")
    return section, option, value


def _options(arguments: argparse.Namespace) -> Options:
    hosts = arguments.host or tuple(Options().hosts)
    base = (
        Options(hosts=dict.fromkeys(hosts, AgentOptions()))
        if arguments.plain
        else with_agent_flows(*hosts)
    )
    usual = base.hosts[hosts[0]]
    agent = AgentOptions(
        firewall_driver=arguments.firewall_driver or usual.firewall_driver,
        extensions=tuple(arguments.agent_extension or usual.extensions),
        extra=_sections(arguments.agent_option),
    )
    return dataclasses.replace(
        base,
        hosts=dict.fromkeys(hosts, agent),
        mechanism_drivers=tuple(arguments.mechanism_driver or base.mechanism_drivers),
        service_plugins=tuple(arguments.service_plugin or base.service_plugins),
        extra=_sections(arguments.server_option),
    )


def _sections(settings: list[tuple[str, str, str]]) -> Sections:
    sections: dict[str, dict[str, object]] = {}
    for section, name, value in settings:
        sections.setdefault(section, {})[name] = value
    return sections


@contextlib.contextmanager
def _running(options: Options) -> Iterator[int]:
    """A Neutron that runs; gives the command's exit code once it does."""
    began = time.monotonic()

    def log(part: str) -> None:
        print(f"{time.monotonic() - began:5.1f} s  {part}", flush=True)

    with contextlib.ExitStack() as stack:
        try:
            neutron = stack.enter_context(Neutron(options, log))
        except (CommandFailed, Ended, TimeoutError) as failed:
            print(f"Neutron does not start: {failed}", file=sys.stderr, flush=True)
            raise SystemExit(1) from failed
        print("\n".join(_how_to_talk(neutron)), flush=True)
        yield 0


def _how_to_talk(neutron: Neutron) -> Iterator[str]:
    controller = f"ip netns exec {neutron.controller.namespace.name}"
    yield "\nNeutron runs. To talk to it, without a token:"
    yield f"  {controller} curl -s http://127.0.0.1:{API_PORT}/v2.0/agents"
    for name, host in neutron.hosts.items():
        yield f"On {name}:"
        yield f"  ovs-vsctl --db={host.switch.database} show"
        yield f"  ovs-ofctl -O OpenFlow14 dump-flows {host.switch.management(BRIDGE)}"
        yield f"  less {host.agent.log}"
    logs = [neutron.controller.api.log, neutron.controller.rpc_server.log]
    yield f"Logs of the controller:\n  less {' '.join(str(log) for log in logs)}"
    yield f"To end it:\n  {_BACKGROUND.end_by}"


if __name__ == "__main__":
    sys.exit(main())
