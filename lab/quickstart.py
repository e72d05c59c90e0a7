"""``tools/quickstart``: runs the demonstration without Neutron, and removes it or keeps it."""

import argparse
import sys

from lab.background import Background, until_signalled
from lab.demo.run import Demo
from lab.demo.standalone import Standalone
from lab.leftovers import sweep

_BACKGROUND = Background("quickstart", "tools/quickstart --stop")


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/quickstart", description=__doc__)
    parser.add_argument("--json", action="store_true")
    ending = parser.add_mutually_exclusive_group()
    ending.add_argument("--keep", action="store_true")
    ending.add_argument("--stop", action="store_true")
    options = parser.parse_args()
    if options.stop:
        return _BACKGROUND.stop()
    if options.keep:
        return until_signalled(lambda: keep(options.json))
    sweep()
    return until_signalled(Demo(Standalone(), as_json=options.json).play)


def keep(as_json: bool) -> int:
    """Run it in a process that stays behind with everything."""
    if _BACKGROUND.refuses():
        return 1
    return _BACKGROUND.keep(lambda: Demo(Standalone(), as_json=as_json).kept(_BACKGROUND.end_by))


if __name__ == "__main__":
    sys.exit(main())
