"""Compares the desired state that an agent has with the server's, at every heartbeat."""

import time
from collections.abc import Callable

from oslo_log import log

from agent_flows.rpc.revisions import NOT_COMPARED

LOG = log.getLogger(__name__)


class Comparison:
    """``digest`` calculates the agent's digest (:mod:`agent_flows.rpc.revisions`).

    ``catch_up`` is called when it differs from the server's in two answers in a
    row, and again with each further one; it is to ask the server for what
    differs, in a thread of its own. Two answers that are less than half of
    ``interval`` (seconds) apart count as one: a change may still be on its way.
    After an outage one is enough, for messages may have been lost.

    Digests that change between two answers count as well: on a host whose desired
    state changes all the time a lost message is noticed too.
    """

    def __init__(
        self,
        digest: Callable[[], str],
        catch_up: Callable[[], None],
        interval: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.digest = digest
        self._catch_up = catch_up
        self._patience = interval / 2
        self._clock = clock
        self._differs_since: float | None = None

    def answered(self, mine: str, theirs: str, *, after_outage: bool = False) -> None:
        """The server answered a heartbeat that contained ``mine`` with ``theirs``."""
        now = self._clock()
        if NOT_COMPARED in (mine, theirs) or mine == theirs:
            self._differs_since = None
            return
        if self._differs_since is None:
            self._differs_since = now
            if not after_outage:
                return
        elif now < self._differs_since + self._patience and not after_outage:
            return
        LOG.info("The desired state of this host differs from the server's; asking what differs")
        self._differs_since = now
        self._catch_up()
