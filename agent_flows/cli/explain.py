"""agent-flows explain: what a type of error means, and what to do."""

import argparse
import difflib
import textwrap

from agent_flows import errors
from agent_flows.cli.api_command import WIDTH, ApiCommand
from agent_flows.cli.failure import CommandFailed, ExitCode
from agent_flows.errors import ErrorType

_NAME = max(map(len, ErrorType)) + 2


class Explain(ApiCommand):
    """Explain a type of error: its cause and its remedy. Without TYPE, list all types."""

    examples = """
        agent-flows explain
        agent-flows explain FlowRefused
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "type", metavar="TYPE", nargs="?", help="A type of error, as port show names it."
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        if parsed_args.type is None:
            lines = [_short(each) for each in ErrorType]
        else:
            lines = _explained(_find(parsed_args.type))
        self.app.stdout.write("\n".join(lines) + "\n")


def _find(typed: str) -> ErrorType:
    known = errors.declared(typed)
    if known is not None:
        return known
    by_lower = {each.value.lower(): each for each in ErrorType}
    if typed.lower() in by_lower:
        return by_lower[typed.lower()]
    close = [by_lower[each].value for each in difflib.get_close_matches(typed.lower(), by_lower)]
    hint = f"Did you mean {' or '.join(close)}?" if close else "agent-flows explain lists all."
    raise CommandFailed(f"There is no type of error {typed}. {hint}", ExitCode.NOT_FOUND)


def _explained(error: ErrorType) -> list[str]:
    parts = {
        "cause": error.cause,
        "to do": error.remedy,
        "users see": error.project,
    }
    if error.other_driver:
        parts["where"] = "inside Neutron, with a firewall driver that is not ours"
    lines = [error.value]
    for name, text in parts.items():
        lines += _paragraph(f"  {name:<10}", text)
    return lines


def _short(error: ErrorType) -> str:
    cause = textwrap.shorten(_plain(error.cause), WIDTH - _NAME, placeholder=" ...")
    return f"{error.value:<{_NAME - 1}} {cause}"


def _paragraph(start: str, text: str) -> list[str]:
    return textwrap.wrap(
        _plain(text),
        WIDTH,
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_on_hyphens=False,
    )


def _plain(text: str) -> str:
    return text.replace("`", "")
