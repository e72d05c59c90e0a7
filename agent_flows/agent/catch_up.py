"""Asks the server what it desires of a standalone host, and has the ports concerned looked at."""

import enum
import threading
import time
from collections.abc import Callable, Collection

import oslo_messaging
from oslo_log import log

from agent_flows.agent.site import AgentSite, Specs
from agent_flows.agent.upkeep import Upkeep
from agent_flows.engine.port_life import Phase
from agent_flows.engine.reconciler import Reconciler
from agent_flows.report import Trouble
from agent_flows.rpc.desired import Update
from agent_flows.supervision import Backoff, Loop, Troubles
from agent_flows.validation import Invalid

LOG = log.getLogger(__name__)

_BACKOFF = Backoff(0.5, 10.0)
# Seconds in which a port that the server awaits is forced once: its report may be on its way.
_AWAITED_PAUSE = 60.0
# Changes of groups that wait to be learnt; instead of more than these the server is asked.
_MOST_CARRIED = 64
# A port in another phase is reported without being asked for.
_SETTLED = frozenset({Phase.NEW, Phase.PROVEN, Phase.STALE, Phase.ABSENT})


class _Question(enum.Enum):
    """What the server is asked about this host as a whole."""

    GROUPS = enum.auto()
    WHAT_DIFFERS = enum.auto()
    ALL_PORTS = enum.auto()


class CatchUp:
    """The listener of the server's casts and of the heartbeat's answers: those methods only note
    what is to be asked. One loop asks, since an answer may take as long as the message bus allows.
    """

    def __init__(
        self,
        server: Specs,
        site: AgentSite,
        reconciler: Reconciler,
        upkeep: Upkeep,
        *,
        unreported: Callable[[], bool],
        troubles: Troubles,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``unreported`` is whether reports wait for the server; ``clock`` gives seconds."""
        self._server, self._site, self._reconciler = server, site, reconciler
        self._upkeep, self._unreported, self._clock = upkeep, unreported, clock
        self._changed = threading.Condition()
        self._questions: set[_Question] = set()
        # What casts carried, in the order of their arrival.
        self._carried: list[Update] = []
        # Ports the server awaited, and when they were last forced for that.
        self._forced: dict[str, float] = {}
        self._loop = Loop(
            "resync",
            self._step,
            troubles,
            Trouble.RESYNC,
            _BACKOFF,
            expected=(oslo_messaging.MessagingException, Invalid),
        )

    def start(self) -> None:
        self._loop.start()

    def stop(self, timeout: float) -> None:
        self._loop.stopping.set()
        with self._changed:
            self._changed.notify_all()
        self._loop.stop(timeout)

    # The heartbeat's answers.

    def server_back(self) -> None:
        """Ports whose specs could not be read while it was away need not wait any longer."""
        lives = self._reconciler.table.lives().values()
        delayed = [life.port_id for life in lives if life.phase is Phase.DELAYED]
        self._reconciler.submit(delayed, afresh=False)

    def digests_differ(self) -> None:
        """The server desires something else of this host than what the agent has."""
        self._ask(_Question.WHAT_DIFFERS)

    # The casts of the server.

    def ports_changed(self, port_ids: Collection[str]) -> None:
        self._reconciler.submit(port_ids, asked=True)

    def security_groups_changed(self, ids: Collection[str], change: Update | None = None) -> None:
        if not self._site.knowledge.may_have(ids):
            return
        with self._changed:
            if change is None or len(self._carried) >= _MOST_CARRIED:
                # The answer has what the casts before it carried, too.
                self._carried.clear()
                self._questions.add(_Question.GROUPS)
            else:
                self._carried.append(change)
            self._changed.notify_all()

    def resync(self, port_ids: Collection[str] | None = None) -> None:
        if port_ids is None:
            self._ask(_Question.ALL_PORTS)
        else:
            self._reconciler.submit(port_ids, forced=True)

    def ports_of_groups_changed(self, port_ids: Collection[str]) -> None:
        """Of what was read from the server."""
        # Their backoff goes on: a group that changes often must not undo it.
        self._reconciler.submit(port_ids, afresh=False)

    def _ask(self, *questions: _Question) -> None:
        with self._changed:
            self._questions.update(questions)
            self._changed.notify_all()

    def _step(self) -> None:
        with self._changed:
            while not (self._questions or self._carried or self._loop.stopping.is_set()):
                self._changed.wait()
            all_ports = _Question.ALL_PORTS in self._questions
        if all_ports:
            self._upkeep.pace(self._loop.stopping.wait)
        if not self._loop.stopping.is_set():
            self.ask_once()

    def ask_once(self) -> bool:
        """Put the open questions to the server, in the caller's thread; False if there are none."""
        with self._changed:
            questions, self._questions = self._questions, set()
            carried, self._carried = self._carried, []
        if not questions and not carried:
            return False
        if not all(self._site.follow(change) for change in carried):
            questions.add(_Question.GROUPS)
        try:
            # All ports include those that differ.
            if _Question.ALL_PORTS in questions:
                self._submit_all()
            elif _Question.WHAT_DIFFERS in questions:
                self._submit_differing()
            if _Question.GROUPS in questions:
                self._site.learn(())
        except BaseException:
            self._ask(*questions)
            raise
        return True

    def _submit_all(self) -> None:
        bound = self._server.get_bound()
        self._site.expect(bound)
        self._upkeep.submit_all(bound)

    def _submit_differing(self) -> None:
        """Ports of which the agent has another desired state than the server, and those the server
        knows nothing of: a message about them was lost."""
        theirs = self._server.get_revisions()
        lives = self._reconciler.table.lives()
        differing, groups_differ = self._site.knowledge.differing(theirs)
        busy = {id_ for id_, life in lives.items() if life.phase not in _SETTLED}
        awaited = set() if self._unreported() else set(theirs.awaited) - busy
        now = self._clock()
        self._forced = {
            port_id: at for port_id, at in self._forced.items() if now < at + _AWAITED_PAUSE
        }
        awaited -= self._forced.keys()
        self._forced |= dict.fromkeys(awaited, now)
        if differing or awaited:
            LOG.info(
                "The server has another desired state of %d ports, and knows nothing of %d ports",
                len(differing),
                len(awaited),
            )
        if groups_differ:
            LOG.info("The server has other revisions of security groups")
            self._site.learn(())
        # Not afresh: each heartbeat finds it until a port that is not plugged in was looked at
        # twice, and the second look may come later than the next heartbeat.
        self._reconciler.submit(differing - awaited, asked=True, afresh=False)
        self._reconciler.submit(awaited, forced=True)
