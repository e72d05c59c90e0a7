"""How a command fails: one error type, and exit codes for scripts."""

import enum

from agent_flows.printable import printable


class ExitCode(enum.IntEnum):
    """The exit codes. argparse itself exits with 2 for an invalid command line."""

    OK = 0
    FAILED = 1
    USAGE = 2
    TIMEOUT = 3
    NOT_FOUND = 4
    INTERRUPTED = 130


EXIT_CODES = """\
exit codes:
  0  done, or the port reached the state
  1  the API could not be reached, refused the request, or failed; or a check of a port is wrong
  2  the command line or the document is invalid
  3  the port did not reach the state in time
  4  no such port, task, agent, security group or network
  130  interrupted by Ctrl-C
"""


class CommandFailed(Exception):
    """Ends a command with one line on standard error and ``exit_code``.

    ``field`` is the field of the request that the server refused, if it named one.
    Control characters in the line are escaped here: it may quote text from outside.
    """

    def __init__(
        self, message: str, exit_code: ExitCode = ExitCode.FAILED, field: str | None = None
    ) -> None:
        self.exit_code = exit_code
        self.field = field
        super().__init__(printable(" ".join(message.split())))
