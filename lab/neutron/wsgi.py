"""Neutron's API as a process: ``python -m lab.neutron.wsgi PORT``."""

import importlib
import sys

import waitress


def main() -> None:
    port = int(sys.argv[1])
    # Neutron reads the command line when its module is imported; its files come by environment.
    sys.argv = ["neutron-api"]
    module = importlib.import_module("neutron.wsgi.api")
    waitress.serve(module.application, host="127.0.0.1", port=port, threads=8)


if __name__ == "__main__":
    main()
