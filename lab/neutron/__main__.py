"""``tools/neutron``: starts a Neutron, says how to talk to it, and ends it again."""

import argparse
import contextlib
import sys
from collections.abc import Iterator

from lab.keeper import Keeper
from lab.neutron.configuration import API_PORT, AgentOptions, Options, Sections
from lab.neutron.host import BRIDGE
from lab.neutron.stack import Neutron
from lab.process import CommandFailed, Ended, Terminated, orderly_signals
from lab.traces import sweep

_INTERRUPTED = 130
_KEEPER = Keeper("neutron")


def main() -> int:
    arguments = _parser().parse_args()
    if arguments.command == "down":
        stopped = _KEEPER.stop()
        print("stopped; nothing is left" if stopped else "nothing to stop")
        return 0
    if _KEEPER.running() is not None:
        print("one is running already; end it by: tools/neutron down", file=sys.stderr)
        return 1
    sweep()
    options = _options(arguments)
    try:
        with orderly_signals():
            return _KEEPER.keep(lambda: _life(options))
    except Terminated as terminated:
        print(f"ended by {terminated}; everything is put away", file=sys.stderr)
        return _INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tools/neutron", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start a Neutron and leave it running")
    commands.add_parser("down", help="end what `up` left running")
    agent, server = AgentOptions(), Options()
    up.add_argument("--host", action="append", help="a compute host; may be repeated (compute-1)")
    up.add_argument("--firewall-driver", default=agent.firewall_driver)
    up.add_argument("--agent-extension", action="append", default=[])
    up.add_argument(
        "--mechanism-driver", action="append", help=f"({', '.join(server.mechanism_drivers)})"
    )
    up.add_argument("--service-plugin", action="append", default=[])
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
    agent = AgentOptions(
        firewall_driver=arguments.firewall_driver,
        extensions=tuple(arguments.agent_extension),
        extra=_sections(arguments.agent_option),
    )
    plain = Options()
    return Options(
        hosts=dict.fromkeys(arguments.host or plain.hosts, agent),
        mechanism_drivers=tuple(arguments.mechanism_driver or plain.mechanism_drivers),
        service_plugins=tuple(arguments.service_plugin),
        extra=_sections(arguments.server_option),
    )


def _sections(settings: list[tuple[str, str, str]]) -> Sections:
    sections: dict[str, dict[str, object]] = {}
    for section, name, value in settings:
        sections.setdefault(section, {})[name] = value
    return sections


@contextlib.contextmanager
def _life(options: Options) -> Iterator[int]:
    """A Neutron that runs; gives the command's exit code once it does."""
    with contextlib.ExitStack() as stack:
        try:
            neutron = stack.enter_context(Neutron(options, lambda line: print(line, flush=True)))
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
    yield "To end it:\n  tools/neutron down"


if __name__ == "__main__":
    sys.exit(main())
