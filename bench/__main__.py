"""``tools/bench``: reads the command line, runs one bench and prints its figures."""

import argparse
import json
import sys
from pathlib import Path

from bench import blocked, idle, ingest, member, page, refresh, storm, wire
from bench.runner import Command, positive, progress, run
from lab.background import until_signalled

COMMANDS = (
    wire.COMMAND,
    refresh.COMMAND,
    member.COMMAND,
    ingest.COMMAND,
    storm.COMMAND,
    idle.COMMAND,
    page.COMMAND,
    blocked.COMMAND,
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/bench", description=__doc__)
    benches = parser.add_subparsers(dest="bench", required=True)
    for command in COMMANDS:
        bench = benches.add_parser(command.name, help=command.help)
        command.arguments(bench)
        if command.ports is not None:
            bench.add_argument(
                "--ports", type=_sizes, default=[command.ports], metavar="N[,N...]",
                help=f"number of ports, or several ({command.ports})",
            )  # fmt: skip
            bench.add_argument(
                "--plot", type=Path, metavar="FILE.svg", help="draw the figures over the ports"
            )
        bench.add_argument(
            "--rounds", type=positive, default=command.rounds, metavar="N",
            help=f"rounds per median ({command.rounds})",
        )  # fmt: skip
        bench.add_argument("--json", action="store_true", help="the last line is a JSON object")
        bench.set_defaults(command=command)
    options = parser.parse_args()
    return until_signalled(lambda: _run(options.command, options))


def _run(command: Command, options: argparse.Namespace) -> int:
    results = [_measured(command, size) for size in _of_one_size(options)]
    if getattr(options, "plot", None):
        from bench import plot

        plot.draw(options.plot, command.help, results)
    return 0


def _of_one_size(options: argparse.Namespace) -> list[argparse.Namespace]:
    sizes = getattr(options, "ports", None)
    if sizes is None:
        return [options]
    return [argparse.Namespace(**{**vars(options), "ports": size}) for size in sizes]


def _measured(command: Command, options: argparse.Namespace) -> dict[str, object]:
    """Everything is printed at once: the next size may take long."""
    with command.prepare(options) as bench:
        figures = run(bench, options.rounds, progress)
    result = {**_parameters(options), **figures}
    width = max(map(len, result))
    for name, value in result.items():
        print(f"{name:{width}}  {value}")
    if options.json:
        print(json.dumps(result))
    sys.stdout.flush()
    return result


def _parameters(options: argparse.Namespace) -> dict[str, object]:
    """What was measured, and how; a flag shows by the figures it adds."""
    return {
        name: value
        for name, value in vars(options).items()
        if isinstance(value, int | str) and not isinstance(value, bool)
    }


def _sizes(text: str) -> list[int]:
    return [positive(word) for word in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
