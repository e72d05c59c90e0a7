"""Telling the story on a terminal: its lines, its document, its exit code."""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from typing import TextIO

from lab.demo.cloud import Stage
from lab.demo.run import Story


def play(stage: Stage, *, as_json: bool) -> int:
    """Tell the story and put everything away; the exit code."""
    story = Story(stage, _teller(as_json))
    with story.stage():
        story.run()
    return _conclude(story, as_json)


@contextlib.contextmanager
def kept(stage: Stage, *, as_json: bool, end_by: str) -> Iterator[int]:
    """The stage, once the story has been told, until the block is left; gives the exit code.

    Raises SystemExit if there is nothing to keep.
    """
    story = Story(stage, _teller(as_json))
    with story.stage():
        story.run()
        code = _conclude(story, as_json)
        if not story.started:
            raise SystemExit(code)
        lines = ["", "It is still running. To look at it:"]
        lines += [f"  {command}" for command in story.how_to_look()]
        lines += ["To end it:", f"  {end_by}"]
        print("\n".join(lines), file=_out(as_json), flush=True)
        yield code


def _out(as_json: bool) -> TextIO:
    return sys.stderr if as_json else sys.stdout


def _teller(as_json: bool) -> Callable[[str], None]:
    return lambda line: print(line, file=_out(as_json), flush=True)


def _conclude(story: Story, as_json: bool) -> int:
    if as_json:
        print(json.dumps(dataclasses.asdict(story.document)), flush=True)
    return 1 if story.problems else 0
