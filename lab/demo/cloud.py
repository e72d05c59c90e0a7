"""What the demonstration needs of a cloud with one host, whichever server answers."""

import abc
import contextlib
from collections.abc import Callable, Collection, Sequence
from typing import Protocol, Self

from lab.demo.scenario import Machine
from lab.model import Rule
from lab.rest import Body
from lab.switch import Switch
from lab.vm import Vm

Log = Callable[[str, str], None]
"""Takes the subject of a line, and its text."""

BRIDGE = "br-int"
QUICK_RETRIES = {"retry_initial": 0.5, "retry_max": 2}


class PortApi(Protocol):
    """Raises :class:`lab.rest.Refused` or OSError."""

    def port(self, identity: str) -> Body: ...

    def tasks(self, port_id: str, state: str | None = None) -> list[Body]:
        """Oldest first; only those in ``state`` if one is given."""

    def wait_port(self, identity: str, seconds: float, **expected: object) -> Body:
        """The port once its fields are as ``expected``; TimeoutError names the values they have."""


class DemoCloud(abc.ABC):
    """Everything it started is gone when the ``with`` block ends.

    Networks and groups are known by their names. Requests raise as :class:`PortApi`'s do.
    """

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._networks: dict[str, str] = {}
        self._groups: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @abc.abstractmethod
    def start(self, log: Log) -> None:
        """Raises CommandFailed, :class:`lab.process.Ended` or OSError too."""

    @property
    @abc.abstractmethod
    def api(self) -> PortApi: ...

    @property
    @abc.abstractmethod
    def switch(self) -> Switch: ...

    @abc.abstractmethod
    def network(self, name: str, vlan: int) -> None: ...

    @abc.abstractmethod
    def group(self, name: str, rules: Sequence[Rule]) -> None:
        """``rules`` are added to those that let everything out, which Neutron adds itself."""

    def group_id(self, name: str) -> str:
        return self._groups[name]

    @abc.abstractmethod
    def remove_rule(self, group: str, rule: Rule) -> None: ...

    @abc.abstractmethod
    def machine(self, machine: Machine) -> Vm:
        """It runs and has a port in the cloud, but is not plugged."""

    @abc.abstractmethod
    def how_to_look(self, vms: Collection[Vm]) -> list[str]:
        """Shell commands that show the cloud, the switch and the logs."""
