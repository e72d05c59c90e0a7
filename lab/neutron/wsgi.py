"""Neutron's API as a process: ``python -m lab.neutron.wsgi PORT``.

Without keystone every caller is an administrator, except one that names a project in the
headers keystone's middleware would add (X-Project-Id, X-User-Id, X-Roles).
"""

import importlib
import sys
from collections.abc import Callable, Iterable
from typing import Any

import waitress
from neutron_lib import context

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def as_somebody(application: Application) -> Application:
    """What Neutron's ``keystonecontext`` filter does, where there is no keystone."""

    def called(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ.get("HTTP_X_PROJECT_ID"):
            environ["neutron.context"] = context.Context.from_environ(environ)
        return application(environ, start_response)

    return called


def main() -> None:
    port = int(sys.argv[1])
    # Neutron reads the command line when its module is imported; its files come by environment.
    sys.argv = ["neutron-api"]
    module = importlib.import_module("neutron.wsgi.api")
    waitress.serve(as_somebody(module.application), host="127.0.0.1", port=port, threads=8)


if __name__ == "__main__":
    main()
