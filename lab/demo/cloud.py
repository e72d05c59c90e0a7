"""What the quickstart's story is played on: a cloud with one host, asked in the cloud's words."""

import abc
import contextlib
from collections.abc import Callable, Collection, Sequence
from typing import Self

from lab.cloud import Rule
from lab.demo.scenario import Machine
from lab.rest import Body
from lab.switch import Switch
from lab.vm import Vm

Say = Callable[[str, str], None]
"""A word for what it is about, and what there is to say."""

BRIDGE = "br-int"
QUICK_RETRIES = {"retry_initial": 0.5, "retry_max": 2}


class Stage(abc.ABC):
    """Nothing of it is left when the ``with`` block ends.

    Networks and groups are known by their names. Whatever asks the cloud
    raises :class:`lab.rest.Refused` or OSError.
    """

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @abc.abstractmethod
    def start(self, say: Say) -> None:
        """Raises CommandFailed, :class:`lab.process.Ended` or OSError too."""

    @property
    @abc.abstractmethod
    def switch(self) -> Switch: ...

    @abc.abstractmethod
    def network(self, name: str, vlan: int) -> None: ...

    @abc.abstractmethod
    def group(self, name: str, rules: Sequence[Rule]) -> None:
        """``rules`` come beside those that let everything out, as Neutron's own do."""

    @abc.abstractmethod
    def group_id(self, name: str) -> str: ...

    @abc.abstractmethod
    def remove_rule(self, group: str, rule: Rule) -> None: ...

    @abc.abstractmethod
    def machine(self, machine: Machine) -> Vm:
        """It runs and has a port in the cloud, but is not plugged."""

    @abc.abstractmethod
    def port(self, port_id: str) -> Body: ...

    @abc.abstractmethod
    def tasks(self, port_id: str, state: str | None = None) -> list[Body]:
        """Oldest first; only those in ``state`` if one is given."""

    @abc.abstractmethod
    def wait_port(self, port_id: str, seconds: float, **expected: object) -> Body:
        """The port once its fields are as ``expected``; TimeoutError says how they are instead."""

    @abc.abstractmethod
    def how_to_look(self, vms: Collection[Vm]) -> list[str]:
        """Commands for somebody who wants to see for himself."""
