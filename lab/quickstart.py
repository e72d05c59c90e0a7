"""``tools/quickstart``: runs the story, prints it, and leaves nothing behind (or keeps it)."""

import argparse
import sys

from lab.background import Keeper
from lab.demo import output
from lab.demo.standalone import Standalone
from lab.leftovers import sweep
from lab.process import Terminated, orderly_signals

_INTERRUPTED = 130
_KEEPER = Keeper("quickstart")
_END_BY = "tools/quickstart --stop"


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/quickstart", description=__doc__)
    parser.add_argument("--json", action="store_true")
    ending = parser.add_mutually_exclusive_group()
    ending.add_argument("--keep", action="store_true")
    ending.add_argument("--stop", action="store_true")
    options = parser.parse_args()
    if options.stop:
        return stop()
    try:
        with orderly_signals():
            return keep(options.json) if options.keep else play(options.json)
    except Terminated as terminated:
        print(f"ended by {terminated}; everything is put away", file=sys.stderr)
        return _INTERRUPTED


def play(as_json: bool) -> int:
    """Tell the story and put everything away; the exit code."""
    sweep()
    return output.play(Standalone(), as_json=as_json)


def keep(as_json: bool) -> int:
    """Tell the story in a process that stays behind with everything, until :func:`stop`."""
    if _KEEPER.running() is not None:
        print(f"one is running already; end it by: {_END_BY}", file=sys.stderr)
        return 1
    return _KEEPER.keep(lambda: output.kept(Standalone(), as_json=as_json, end_by=_END_BY))


def stop() -> int:
    """End what an earlier ``--keep`` left running, and wait until it is gone."""
    print("stopped; nothing is left" if _KEEPER.stop() else "nothing to stop", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
