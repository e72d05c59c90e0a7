"""Packets that must never pass, sent without a pause and counted where they would arrive."""

import contextlib
import threading
from collections.abc import Sequence
from typing import Self

from lab import frames
from lab.vm import Vm

FORBIDDEN_UDP = 9999
_STRANGE_ADDRESS = "192.0.2.66"


class Attack:
    """Sends what must never pass, from the first moment to the last, every ``pause`` seconds.

    ``attacker`` is a wired port that knocks where no rule lets it in; the
    ``victims`` send with a forged address.
    """

    def __init__(self, attacker: Vm, victims: Sequence[Vm], pause: float = 0.002) -> None:
        self._pause = pause
        self._knock, self._forged = b"af-knock", b"af-forged"
        self._attacker_wire = attacker.wire()
        self._wires = {vm.name: vm.wire() for vm in victims}
        self._knocks = [
            frames.udp(
                (attacker.mac, vm.mac), (attacker.ip, vm.ip), (4000, FORBIDDEN_UDP), self._knock
            )
            for vm in victims
        ]
        self._forgeries = {
            vm.name: frames.udp(
                (vm.mac, attacker.mac), (_STRANGE_ADDRESS, attacker.ip), (4000, 80), self._forged
            )
            for vm in victims
        }
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.rounds = 0

    def _run(self) -> None:
        while not self._enough.wait(self._pause):
            self.rounds += 1
            # The cables are cut while the attack goes on.
            with contextlib.suppress(OSError):
                for frame in self._knocks:
                    self._attacker_wire.send(frame)
                for name, frame in self._forgeries.items():
                    self._wires[name].send(frame)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()

    @property
    def sent(self) -> int:
        return self.rounds * (len(self._knocks) + len(self._forgeries))

    def passed(self) -> dict[str, int]:
        """What got through, by where it arrived."""
        seen = {name: wire.arrived(self._knock) for name, wire in self._wires.items()}
        seen["attacker"] = self._attacker_wire.arrived(self._forged)
        return {name: count for name, count in seen.items() if count}
