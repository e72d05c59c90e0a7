"""``tools/bench``: reads the command line, runs a measurement and prints its figures."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable

from bench import idle, neutron, port, rule, wire
from lab.background import until_signalled


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/bench", description=__doc__)
    benches = parser.add_subparsers(dest="bench", required=True)
    wires = benches.add_parser("wire", help="many ports at once, and the bare tools")
    wires.add_argument("--ports", type=_positive, default=100, metavar="N")
    wires.add_argument("--bus", choices=["embedded", "rabbit"], default="embedded")
    wires.add_argument("--rounds", type=_positive, default=3, help="rounds per median")
    ports = benches.add_parser("port", help="one port on an idle agent")
    ports.add_argument("--times", type=_positive, default=7, metavar="N")
    rules = benches.add_parser("rule", help="a rule added to a group of many local ports")
    rules.add_argument("--ports", type=_positive, default=200, metavar="N")
    rules.add_argument("--rounds", type=_positive, default=7, help="rounds per median")
    idles = benches.add_parser("idle", help="an agent with many ports and nothing to do")
    idles.add_argument("--ports", type=_positive, default=500, metavar="N")
    idles.add_argument(
        "--bus",
        choices=["embedded", "rabbit"],
        default="rabbit",
        help="embedded: server and agent in one process, which is measured",
    )
    idles.add_argument("--seconds", type=_positive, default=60, help="how long to measure")
    neutrons = benches.add_parser("neutron", help="plain Neutron, and one with agent_flows")
    neutrons.add_argument("--ports", type=_positive, default=100, metavar="N")
    neutrons.add_argument("--rounds", type=_positive, default=1, help="rounds per median")
    for bench in (wires, ports, rules, idles, neutrons):
        bench.add_argument("--json", action="store_true", help="the last line is a JSON object")
    options = parser.parse_args()
    return until_signalled(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    def log(line: str) -> None:
        print(line, file=sys.stderr if options.json else sys.stdout, flush=True)

    figures = _measure(options, log)
    if options.json:
        print(json.dumps(dataclasses.asdict(figures)))
    return 0


def _measure(
    options: argparse.Namespace, log: Callable[[str], None]
) -> (
    wire.WireFigures
    | port.PortFigures
    | rule.RuleFigures
    | idle.IdleFigures
    | neutron.NeutronFigures
):
    match options.bench:
        case "wire":
            return wire.measure(options.ports, options.bus, options.rounds, log)
        case "rule":
            return rule.measure(options.ports, options.rounds, log)
        case "idle":
            return idle.measure(options.ports, options.bus, options.seconds, log)
        case "neutron":
            return neutron.measure(options.ports, options.rounds, log)
        case _:
            return port.measure(options.times, log)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
