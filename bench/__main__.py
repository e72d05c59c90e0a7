"""``tools/bench``: reads the command line, runs a measurement, prints what it found."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable

from bench import neutron, port, rule, wire
from lab.process import Terminated, orderly_signals

_INTERRUPTED = 130


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/bench", description=__doc__)
    benches = parser.add_subparsers(dest="bench", required=True)
    wires = benches.add_parser("wire", help="many ports plugged at once, beside the bare tools")
    wires.add_argument("--ports", type=_positive, default=100, metavar="N")
    wires.add_argument("--bus", choices=["embedded", "rabbit"], default="embedded")
    wires.add_argument("--rounds", type=_positive, default=3, help="medians of so many")
    ports = benches.add_parser("port", help="one port on an idle agent")
    ports.add_argument("--times", type=_positive, default=7, metavar="N")
    rules = benches.add_parser("rule", help="a rule added to a group of many local ports")
    rules.add_argument("--ports", type=_positive, default=200, metavar="N")
    rules.add_argument("--rounds", type=_positive, default=7, help="medians of so many")
    neutrons = benches.add_parser("neutron", help="plain Neutron beside one with agent_flows")
    neutrons.add_argument("--ports", type=_positive, default=100, metavar="N")
    neutrons.add_argument("--rounds", type=_positive, default=1, help="medians of so many")
    for bench in (wires, ports, rules, neutrons):
        bench.add_argument("--json", action="store_true", help="the last line is a JSON object")
    options = parser.parse_args()
    try:
        with orderly_signals():
            figures = _measure(options, _teller(options.json))
    except Terminated as terminated:
        print(f"ended by {terminated}; everything is put away", file=sys.stderr)
        return _INTERRUPTED
    if options.json:
        print(json.dumps(dataclasses.asdict(figures)))
    return 0


def _measure(
    options: argparse.Namespace, tell: Callable[[str], None]
) -> wire.WireFigures | port.PortFigures | rule.RuleFigures | neutron.NeutronFigures:
    match options.bench:
        case "wire":
            return wire.measure(options.ports, options.bus, options.rounds, tell)
        case "rule":
            return rule.measure(options.ports, options.rounds, tell)
        case "neutron":
            return neutron.measure(options.ports, options.rounds, tell)
        case _:
            return port.measure(options.times, tell)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _teller(as_json: bool) -> Callable[[str], None]:
    return lambda line: print(line, file=sys.stderr if as_json else sys.stdout, flush=True)


if __name__ == "__main__":
    sys.exit(main())
