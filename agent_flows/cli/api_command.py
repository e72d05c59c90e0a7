"""What every command that calls the API has: the client, and help with examples."""

import argparse
import contextlib
import shutil
import sys
import textwrap
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from cliff.columns import FormattableColumn
from cliff.command import Command
from cliff.lister import Lister
from cliff.show import ShowOne

from agent_flows.cli import columns, progress, refs
from agent_flows.cli.failure import EXIT_CODES, CommandFailed
from agent_flows.printable import printable

if TYPE_CHECKING:  # the client takes a while to import, and --help needs none
    from agent_flows.cli.client import Client


class ApiCommand(Command):
    """A command whose app has a ``client_manager`` with the client as ``agent_flows``.

    That is how an OpenStackClient plugin offers its client to its commands, so
    these commands can be registered there with another client.
    """

    examples: ClassVar[str] = ""

    @property
    def api(self) -> "Client":
        client: Client = self.app.client_manager.agent_flows  # type: ignore[attr-defined]
        return client

    def say(self, line: str) -> None:
        """Write a line to standard error."""
        self.app.stderr.write(printable(line) + "\n")

    def for_each(self, names: Sequence[str], do: Callable[[str], None], done: str) -> None:
        """``do`` it for each name and write each result to standard error.

        A failure does not stop the others. Raises :class:`CommandFailed` if any
        failed; with one name alone, its own.
        """
        failed = []
        for name in names:
            try:
                do(name)
            except CommandFailed as exc:
                if len(names) == 1:
                    raise
                failed.append(name)
                self.say(f"{name}: {exc}")
            else:
                self.say(f"{name}: {done}")
        if failed:
            raise CommandFailed(f"{len(failed)} of {len(names)} failed: {', '.join(failed)}")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        return parser

    def get_epilog(self) -> str:
        lines = [line.strip() for line in self.examples.strip().splitlines()]
        return "examples:\n" + "".join(f"  {line}\n" for line in lines) + "\n" + EXIT_CODES


# Formats for programs: they keep every character and escape what is not printable.
_FOR_PROGRAMS = ("json", "yaml")
WIDTH = 100
"""A terminal has at least so many columns; tables fit them."""
_NARROWEST = 8


class ListCommand(ApiCommand, Lister):
    """A command that lists resources; it escapes control characters for a terminal.

    A table fits a terminal: it has the columns ``shown``, all if that is empty, and of an id as
    much as no other in its column has. ``--long``, ``-c`` and every other format are complete.
    """

    shown: ClassVar[Sequence[str]] = ()
    whole: ClassVar[Sequence[str]] = ("id",)
    """Columns whose values are copied, and never wrapped."""
    spare: ClassVar[Sequence[str]] = ()
    """Columns that are left out, the first one first, where the table would not fit otherwise."""
    ids: ClassVar[Mapping[str, str]] = {"id": ""}
    """Columns of ids, and the collection that has the names of what is there; "" to leave ids."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--long", action="store_true", help="Every column of a table, with whole ids."
        )
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        with contextlib.ExitStack() as self._reading:
            self._reading.enter_context(progress.shown(self.app.stderr, "reading"))
            return super().run(parsed_args)

    def is_short(self, parsed_args: argparse.Namespace) -> bool:
        return bool(
            parsed_args.formatter == "table" and not parsed_args.long and not parsed_args.columns
        )

    def produce_output(
        self,
        parsed_args: argparse.Namespace,
        column_names: Sequence[str],
        data: Iterable[Sequence[Any]],
    ) -> int:
        if self.is_short(parsed_args):
            column_names, data = self._shortened(column_names, list(data))
            table = {name: [_text(row[at]) for row in data] for at, name in enumerate(column_names)}
            width = parsed_args.max_width or _width()
            fitted = _fitted(table, width, self.whole, self.spare)
            column_names, data = list(fitted), list(zip(*fitted.values(), strict=True))
        elif parsed_args.formatter not in _FOR_PROGRAMS:
            data = [_escaped(row) for row in data]
        # Nothing is written beside the line that shows the progress.
        self._reading.close()
        return super().produce_output(parsed_args, column_names, data)

    def _shortened(
        self, column_names: Sequence[str], rows: list[Sequence[Any]]
    ) -> tuple[Sequence[str], list[Sequence[Any]]]:
        texts: dict[int, Mapping[str, str]] = {}
        for place, name in enumerate(column_names):
            if name in self.ids:
                found = [row[place] for row in rows if row[place]]
                texts[place] = refs.shortened(found)
                if collection := self.ids[name]:
                    texts[place] = {**texts[place], **refs.names(self.api, collection, found)}
        chosen = [name for name in self.shown or column_names if name in column_names]
        places = [column_names.index(name) for name in chosen]
        return chosen, [
            [texts[at].get(row[at], row[at]) if at in texts else row[at] for at in places]
            for row in rows
        ]


def _fitted(
    table: Mapping[str, list[str]], width: int, whole: Collection[str], spare: Sequence[str]
) -> Mapping[str, list[str]]:
    """Columns by name, the longest wrapped until the table is ``width`` wide; without as many of
    the ``spare`` ones as that takes."""
    natural = {
        name: max(map(len, [name, *(line for text in texts for line in text.split("\n"))]))
        for name, texts in table.items()
    }
    # Names of columns are not wrapped.
    least = {
        name: size if name in whole else max(len(name), min(size, _NARROWEST))
        for name, size in natural.items()
    }
    # A border and a space on either side of each.
    needed = sum(least.values()) + 3 * len(table) + 1
    if needed > width and spare:
        left = {name: texts for name, texts in table.items() if name != spare[0]}
        return _fitted(left, width, whole, spare[1:])
    sizes, room = dict(natural), width - 3 * len(table) - 1
    while sum(sizes.values()) > room and sizes != least:
        widest = max(sizes, key=lambda name: (sizes[name] > least[name], sizes[name]))
        sizes[widest] -= 1
    return {name: [_wrapped(text, sizes[name]) for text in texts] for name, texts in table.items()}


def _text(value: Any) -> str:
    if isinstance(value, FormattableColumn):
        return str(value.human_readable())
    return printable(value) if isinstance(value, str) else str(value)


def _wrapped(text: str, width: int) -> str:
    lines = text.split("\n")
    return "\n".join(part for line in lines for part in textwrap.wrap(line, width) or [""])


def _width() -> int:
    return shutil.get_terminal_size((WIDTH, 0)).columns if sys.stdout.isatty() else WIDTH


class ShowCommand(ApiCommand, ShowOne):
    """A command that shows one resource; it escapes control characters for a terminal."""

    def run(self, parsed_args: argparse.Namespace) -> int:
        with contextlib.ExitStack() as self._reading:
            self._reading.enter_context(progress.shown(self.app.stderr, "reading"))
            return super().run(parsed_args)

    def named(
        self, parsed_args: argparse.Namespace, collection: str, ids: str | Sequence[str] | None
    ) -> Any:
        """An id or several, with the names of what they are of in a table."""
        if parsed_args.formatter != "table" or not ids:
            return ids if isinstance(ids, str) or not ids else columns.Words(ids)
        listed = [ids] if isinstance(ids, str) else ids
        return columns.Named(ids, refs.names(self.api, collection, listed))

    def produce_output(
        self, parsed_args: argparse.Namespace, column_names: Sequence[str], data: Sequence[Any]
    ) -> int:
        if parsed_args.formatter not in _FOR_PROGRAMS:
            column_names, data = _escaped(column_names), _escaped(data)
        if parsed_args.formatter == "table" and not parsed_args.max_width:
            parsed_args.max_width = _width()
        self._reading.close()
        return super().produce_output(parsed_args, column_names, data)


def _escaped(values: Sequence[Any]) -> tuple[Any, ...]:
    """The columns in :mod:`agent_flows.cli.columns` do it themselves."""
    return tuple(printable(value) if isinstance(value, str) else value for value in values)
