"""agent-flows apply: desired state from a file, without an orchestrator."""

import argparse
import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, Any

from agent_flows.cli import documents
from agent_flows.cli.api_command import ListCommand
from agent_flows.cli.documents import Resource
from agent_flows.cli.failure import CommandFailed, ExitCode

# Of one request without --atomic.
_OBJECTS = 500
_BYTES = 512 * 1024
_APPLIED = ("created", "changed", "unchanged")

Report = Callable[[int], None]
"""Called with how many more objects are done."""


class Apply(ListCommand):
    """Apply the networks, address groups, security groups and ports of YAML or JSON documents.

    Each document has the keys networks, address_groups, security_groups and
    ports, each a list of objects as the REST API takes them, each with its id.
    Existing objects are replaced; objects that the document does not contain
    stay. Applying a document twice changes nothing.

    Objects are sent 500 at a time. A refused object does not stop the others.
    With --atomic each document is one request: if an object is refused, nothing
    of its document is applied. A file may contain several documents, separated
    by a line with ---; all are checked before the first is sent.
    """

    examples = """
        agent-flows apply cloud.yaml
        agent-flows apply --atomic cloud.yaml
        generate-cloud | agent-flows apply -
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("file", metavar="FILE", help="The document; - for standard input.")
        parser.add_argument(
            "--atomic",
            action="store_true",
            help="Apply each document as a whole or not at all.",
        )
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        self._code = ExitCode.OK
        code: int = super().run(parsed_args)
        return self._code or code

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[Sequence[str], Iterable[Sequence[Any]]]:
        name = parsed_args.file
        with documents.opened(name) as text:
            total = sum(len(document) for document in documents.read(text, name))
            text.seek(0)
            with _progress(total, self.app.stderr, self.say) as report:
                sender = _Sender(self.api.apply, report)
                try:
                    for document in documents.read(text, name):
                        sender.send(document, atomic=parsed_args.atomic)
                except KeyboardInterrupt:
                    self._code = ExitCode.INTERRUPTED
        applied = sum(result in _APPLIED for *_, result in sender.results)
        if self._code is ExitCode.OK and applied < total:
            self._code = ExitCode.FAILED
        if applied < total:
            self.say(self._summary(total, applied, sender))
        return ("kind", "id", "result"), sender.results

    def _summary(self, total: int, applied: int, sender: "_Sender") -> str:
        what = "Interrupted: " if self._code is ExitCode.INTERRUPTED else ""
        parts = [f"{applied} of {total} objects are applied"]
        if refused := len(sender.results) - applied:
            parts.append(f"{refused} are not")
        if sender.in_doubt:
            parts.append(f"{len(sender.in_doubt)} may be: their request was not answered")
        if unsent := total - len(sender.results) - len(sender.in_doubt):
            parts.append(f"{unsent} were not sent")
        return f"{what}{'; '.join(parts)}. To apply the same file again is safe."


class _Sender:
    """Sends documents, and notes what became of each object in ``results``.

    A failure that is not about one object ends everything that follows: ``send`` then does
    nothing.
    """

    def __init__(
        self, apply: Callable[[dict[str, list[Any]]], dict[str, Any]], report: Report
    ) -> None:
        self._apply = apply
        self._report = report
        self._stopped = False
        self.results: list[tuple[str, str, str]] = []
        self.in_doubt: list[Resource] = []

    def send(self, document: Sequence[Resource], *, atomic: bool) -> None:
        """Send a document.

        Raises KeyboardInterrupt, and CommandFailed if the first request fails as a whole.
        """
        for chunk in [document] if atomic else chunks(document):
            if self._stopped:
                return
            if atomic:
                self._send_whole(chunk)
            else:
                self._send_without_refused(list(chunk))

    def _send_whole(self, chunk: Sequence[Resource]) -> None:
        try:
            results = self._request(chunk)
        except CommandFailed as exc:
            place = _at_fault(exc.field, chunk)
            if place is None:
                self._stop(exc)
                results = [str(exc)] * len(chunk)
            else:
                results = [f"not applied: {chunk[place].id} was refused"] * len(chunk)
                results[place] = _reason(exc)
        self._note(chunk, results)

    def _send_without_refused(self, left: list[Resource]) -> None:
        while left:
            try:
                results = self._request(left)
            except CommandFailed as exc:
                place = _at_fault(exc.field, left)
                if place is None:
                    self._stop(exc)
                    self._note(left, [str(exc)] * len(left))
                    return
                self._note([left.pop(place)], [_reason(exc)])
            else:
                self._note(left, results)
                return

    def _stop(self, failure: CommandFailed) -> None:
        if not self.results:
            # Said once, not of each object.
            raise failure
        self._stopped = True

    def _request(self, chunk: Sequence[Resource]) -> list[str]:
        """The result of each object; raises CommandFailed if the request is refused."""
        body: dict[str, list[Any]] = {}
        for resource in chunk:
            body.setdefault(resource.section, []).append(resource.body)
        self.in_doubt = list(chunk)
        answer = self._apply(body)
        outcome = {
            (section, id_): result
            for section, by_result in answer.items()
            for result in _APPLIED
            for id_ in by_result[result]
        }
        return [outcome[each.section, each.id] for each in chunk]

    def _note(self, chunk: Sequence[Resource], results: Sequence[str]) -> None:
        self.results += [
            (each.section, each.id, result) for each, result in zip(chunk, results, strict=True)
        ]
        self.in_doubt = []
        self._report(len(chunk))


def chunks(document: Sequence[Resource]) -> Iterator[Sequence[Resource]]:
    """``document`` in order, in parts that one request may have."""
    chunk: list[Resource] = []
    size = 0
    for resource in document:
        if chunk and (len(chunk) == _OBJECTS or size + resource.size > _BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(resource)
        size += resource.size
    if chunk:
        yield chunk


def _at_fault(field: str | None, chunk: Sequence[Resource]) -> int | None:
    """The place in ``chunk`` of the object that ``field`` of its request is about."""
    section, _, rest = (field or "").partition(".")
    number = rest.partition(".")[0]
    places = [place for place, each in enumerate(chunk) if each.section == section]
    return places[int(number)] if number.isdecimal() and int(number) < len(places) else None


def _reason(refusal: CommandFailed) -> str:
    """Why an object was refused, without its place in the request."""
    field = refusal.field or ""
    within = field.split(".", 2)[2] if field.count(".") > 1 else ""
    reason = str(refusal).removeprefix(f"{field}: ")
    return f"{within}: {reason}" if within else reason


@contextlib.contextmanager
def _progress(total: int, stream: IO[str], say: Callable[[str], None]) -> Iterator[Report]:
    """A bar on a terminal; elsewhere a line for each request, if there are several."""
    if stream.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Progress(*columns, console=Console(file=stream), transient=True) as bar:
            task = bar.add_task("apply", total=total)
            yield lambda done: bar.advance(task, done)
        return
    finished = 0

    def report(done: int) -> None:
        nonlocal finished
        finished += done
        if total > _OBJECTS and done > 1:
            say(f"{finished} of {total}")

    yield report
