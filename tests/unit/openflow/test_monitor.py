"""What ``ovs-ofctl monitor`` of Open vSwitch 3.1 prints, and when it is started again."""

import os
import threading
from collections.abc import Sequence

import pytest

from agent_flows.openflow.monitor import Changes, FlowMonitor, changes
from agent_flows.report import Trouble
from agent_flows.supervision import Troubles

MESSAGE = b"OFPST_FLOW_MONITOR reply (OF1.4) (xid=0x0):\n"
BEGIN = b"OFPST_FLOW_MONITOR reply (OF1.4) (xid=0x2):\n"
OURS = 0xAF10010000010001


class Script:
    """A child that prints this, and then waits until it is killed, unless it ``ends``."""

    def __init__(self, *texts: bytes, ends: bool = False) -> None:
        self._reader, self.writer = os.pipe()
        self._lock, self._ended = threading.Lock(), False
        os.write(self.writer, b"".join(texts))
        if ends:
            self.end()

    def fileno(self) -> int:
        return self._reader

    def end(self) -> None:
        with self._lock:
            if not self._ended:
                self._ended = True
                os.close(self.writer)


class Followed:
    """A monitor whose children are those given, one after the other."""

    def __init__(self, *children: Script) -> None:
        self._children = list(children)
        self.started: list[Script] = []
        self.changes: list[Changes] = []
        self.troubles = Troubles()
        self.reported: list[str] = []
        self.troubles.changed = lambda: self.reported.extend(self.troubles.current().values())
        self._changed = threading.Condition()
        self._monitor = FlowMonitor("/run", "br-int", self._add, self.troubles, start=self._start)

    def _start(self, argv: Sequence[str]) -> Script:
        self.started.append(self._children.pop(0))
        return self.started[-1]

    def _add(self, changed: Changes) -> None:
        with self._changed:
            self.changes.append(changed)
            self._changed.notify_all()

    def wait(self, number: int) -> list[Changes]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.changes) >= number, 10)
        return self.changes

    def __enter__(self) -> "Followed":
        self._monitor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._monitor.stop(5)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (" event=ADDED table=0 cookie=0", Changes(foreign=frozenset({0}))),
        (" event=ADDED table=82 cookie=0x7 tcp,reg5=0x7", Changes(foreign=frozenset({7}))),
        (
            " event=ADDED table=0 idle_timeout=2 hard_timeout=1 cookie=0x7 ip",
            Changes(foreign=frozenset({7})),
        ),
        (
            f" event=ADDED table=82 cookie={OURS:#x} tcp,reg5=0x7",
            Changes(added=frozenset({OURS})),
        ),
        (f" event=ADDED table=82 cookie={OURS:#x}", Changes(added=frozenset({OURS}))),
        (" event=MODIFIED table=0 cookie=0x7 tcp", Changes(foreign=frozenset({7}))),
        (f" event=MODIFIED table=82 cookie={OURS:#x} tcp,reg5=0x7", Changes(modified=True)),
        (f" event=MODIFIED table=82 cookie={OURS:#x}", Changes(modified=True)),
        (
            f" event=DELETED reason=delete table=82 cookie={OURS:#x} tcp,reg5=0x7",
            Changes(deleted=frozenset({OURS})),
        ),
        (
            f" event=DELETED reason=hard table=1 hard_timeout=1 cookie={OURS:#x}",
            Changes(deleted=frozenset({OURS})),
        ),
        (" event=DELETED reason=delete table=82 cookie=0x7 tcp", Changes()),
        (" event=PAUSED", Changes(paused=True)),
        (" event=RESUMED", Changes()),
        (" event=ABBREV xid=0x1", Changes()),
    ],
)
def test_an_event_is_read(line: str, expected: Changes) -> None:
    assert changes(MESSAGE + line.encode()) == expected
    assert changes(f"{line}\n{line}".encode()) == expected


def test_an_event_is_read_wherever_what_is_printed_was_cut():
    line = b" event=ADDED table=82 cookie=0x7 tcp,reg5=0x7\n"
    for cut in range(len(line)):
        child = Script(BEGIN)
        with Followed(child) as followed:
            followed.wait(1)
            os.write(child.writer, line[:cut])
            os.write(child.writer, line[cut:])
            assert followed.wait(2) == [Changes(missed=True), Changes(foreign=frozenset({7}))]


def test_a_monitor_that_ended_is_a_trouble_until_it_runs_again():
    first = Script(BEGIN, b"ovs-ofctl: vconn_recv (End of file)\n", ends=True)
    refused = Script(b"ovs-ofctl: connecting to unix:/run/br-int.mgmt (Refused)\n", ends=True)
    with Followed(first, refused, Script(BEGIN)) as followed:
        assert followed.wait(2) == [Changes(missed=True)] * 2
        assert len(followed.started) == 3
    assert [line.rpartition("ovs-ofctl: ")[2] for line in followed.reported] == [
        "vconn_recv (End of file)",
        "connecting to unix:/run/br-int.mgmt (Refused)",
    ]
    assert Trouble.MONITOR not in followed.troubles.current()


def test_stop_ends_a_monitor_that_has_not_begun():
    with Followed(Script()) as followed:
        pass
    assert not followed.troubles.current()
