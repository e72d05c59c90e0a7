"""How a command fails: one error type, and the exit codes a script can rely on."""

import enum

from agent_flows.printable import printable


class ExitCode(enum.IntEnum):
    """What the shell gets. argparse itself ends with 2 for a command line it refuses."""

    OK = 0
    FAILED = 1
    USAGE = 2
    TIMEOUT = 3
    NOT_FOUND = 4


EXIT_CODES = """\
exit codes:
  0  done, or the state waited for was reached
  1  the API could not be reached, refused the request, or failed
  2  the command line, or the document given, cannot be used
  3  the state waited for was not reached in time
  4  there is no such port, task or agent
"""


class CommandFailed(Exception):
    """Ends a command with one line on standard error and ``exit_code``.

    The line may quote what came from outside; it is made harmless here.
    """

    def __init__(self, message: str, exit_code: ExitCode = ExitCode.FAILED) -> None:
        self.exit_code = exit_code
        super().__init__(printable(" ".join(message.split())))
