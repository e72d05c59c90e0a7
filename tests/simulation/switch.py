"""A simulated switch: a table of flows and ports, behind ovs-ofctl and OVSDB."""

import contextlib
import re
import signal
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent_flows.openflow import cookie
from agent_flows.openflow.ofctl import Ran
from agent_flows.openflow.pipeline import DEAD_VLAN
from tests.simulation.steps import Process

BRIDGE = "br-int"
_LINE = re.compile(r"(?:cookie=(?P<cookie>\w+),)?(?P<key>.*?) actions=(?P<actions>.*)")
_KEY = re.compile(r"table=(\d+),priority=(\d+),?(.*)")
_SELECTED = re.compile(r"cookie=(\w+)/(-1|\w+)")
_RULE_PORT = re.compile(r"\btp_dst=(\d+)")
_SOURCE = re.compile(r"nw_src=([\d.]+)")
_FIRST, _SECOND = (re.compile(rf"conjunction\((\d+),{n}/2\)") for n in (1, 2))
_ALL = 0xFFFF_FFFF_FFFF_FFFF


class Row:
    """A row of OVSDB; columns as ovs-vswitchd has them."""

    def __init__(self, **columns: Any) -> None:
        self.uuid = uuid.uuid4()
        self.__dict__.update(columns)


@dataclass
class Plug:
    """The interface of a port, and its Port row."""

    port_id: str
    interface: Row
    port: Row

    @property
    def ofport(self) -> int:
        return int(self.interface.ofport[0])

    @property
    def vlan(self) -> int | None:
        """None for a port that is closed by the dead VLAN, or has no tag yet."""
        tag = next(iter(self.port.tag), None)
        return None if tag in (None, DEAD_VLAN) else int(tag)


@dataclass(frozen=True)
class Allowed:
    """What the rules of a port let in: TCP ports, and the members of remote groups."""

    tcp: frozenset[int] = frozenset()
    members: frozenset[str] = frozenset()

    def __or__(self, other: "Allowed") -> "Allowed":
        return Allowed(self.tcp | other.tcp, self.members | other.members)

    def __str__(self) -> str:
        return f"TCP {sorted(self.tcp)} and members {sorted(self.members)}"


@dataclass
class Trouble:
    """What is wrong with the switch: ``once`` counts the bundles that it is for."""

    kind: str
    bundles: int = 1


@dataclass
class Switch:
    """``flows``: the cookie and the actions of each, by table, priority and match."""

    name: str
    flows: dict[str, tuple[int, str]] = field(default_factory=dict)
    plugs: dict[str, Plug] = field(default_factory=dict)
    bridge: Row = field(
        default_factory=lambda: Row(
            name=BRIDGE, fail_mode=["secure"], protocols=["OpenFlow14"], datapath_type="netdev",
            controller=[], stp_enable=False, rstp_enable=False, external_ids={},
            other_config={"disable-in-band": "true"},
        )
    )  # fmt: skip
    trouble: Trouble | None = None
    changes: int = 0
    _ofport: int = 0

    def plug(self, port_id: str) -> None:
        self._ofport += 1
        name = f"vhu{self._ofport}"
        interface = Row(
            name=name, type="dpdkvhostuserclient", ofport=[self._ofport], error=[],
            external_ids={"iface-id": port_id}, mtu_request=[],
        )  # fmt: skip
        self.plugs[port_id] = Plug(port_id, interface, Row(name=name, tag=[], other_config={}))

    def unplug(self, port_id: str) -> None:
        """Its flows stay: the agent removes them."""
        del self.plugs[port_id]

    def restart(self) -> None:
        self.flows.clear()

    def lose_flow(self, port_id: str) -> bool:
        """Another program deletes a flow that makes a rule of the port; False if it has none."""
        plug = self.plugs.get(port_id)
        keys = [key for key in self.flows if plug is not None and _is_rule(key, plug.ofport)]
        for key in keys[:1]:
            del self.flows[key]
        return bool(keys)

    def retag(self, port_id: str) -> bool:
        """Another program opens or moves the port; False if it has no tag."""
        plug = self.plugs.get(port_id)
        if plug is None or plug.vlan is None:
            return False
        plug.port.tag = [plug.vlan + 1000]
        return True

    def open(self, port_id: str) -> bool:
        """Another program lets in what no rule allows; False if the port has no interface."""
        plug = self.plugs.get(port_id)
        if plug is not None:
            key = f"table=82,priority=200,tcp,reg5={plug.ofport},tp_dst=9"
            self.flows[key] = 0x7, f"output:{plug.ofport}"
        return plug is not None

    def allowed(self, port_id: str) -> Allowed | None:
        """What the rules of the port allow, each of them made of its whole flows; None if the port
        is closed."""
        plug = self.plugs.get(port_id)
        if plug is None or plug.vlan is None:
            return None
        numbers, ids = set(), set()
        for key, (_, actions) in self.flows.items():
            if _is_rule(key, plug.ofport) and (number := _RULE_PORT.search(key)):
                numbers.add(int(number[1]))
                ids |= set(_SECOND.findall(actions))
        members = {
            source[1]
            for key, (_, actions) in self.flows.items()
            if ids
            and (source := _SOURCE.search(key))
            and not ids.isdisjoint(_FIRST.findall(actions))
        }
        return Allowed(frozenset(numbers), frozenset(members))

    def has_flows_of(self, ofport: int) -> bool:
        return any(
            cookie.kind(value) == cookie.Kind.PORT and cookie.serial(value) == ofport
            for value, _ in self.flows.values()
        )


def _is_rule(key: str, ofport: int) -> bool:
    return f"reg5={ofport}," in f"{key}," and "tp_dst=" in key and key.startswith("table=82,")


class Ofctl:
    """ovs-ofctl as the agent runs it: :data:`agent_flows.openflow.ofctl.Execute`."""

    def __init__(self, switch: Switch, process: Process) -> None:
        self._switch, self._process = switch, process
        self._commands: Mapping[str, Callable[[Sequence[str], str], Ran]] = {
            "add-flows": self._bundle,
            "dump-flows": self._dump,
            "dump-aggregate": self._count,
            "diff-flows": self._differences,
            "dump-ports-desc": lambda argv, stdin: _ran(),
            "mod-port": lambda argv, stdin: _ran(),
            "ct-flush": lambda argv, stdin: _ran(),
        }

    def __call__(self, argv: Sequence[str], stdin: str, limit: float) -> Ran:
        words = [word for word in argv[4:] if not word.startswith("-") or word == "-"]
        name, *rest = words
        self._process.point(f"before ovs-ofctl {name}", free=False)
        ran = self._commands[name](rest, stdin)
        self._process.point(f"after ovs-ofctl {name}", free=False)
        return ran

    def _bundle(self, argv: Sequence[str], stdin: str) -> Ran:
        lines = stdin.splitlines()
        if refused := self._refused(lines):
            return refused
        flows = self._switch.flows
        for line in lines:
            verb, _, text = line.partition(" ")
            if verb == "add":
                found = _LINE.fullmatch(text)
                assert found, line
                actions = found["actions"].replace("strip_vlan", "pop_vlan")
                flows[found["key"]] = int(found["cookie"], 16), actions
            elif verb == "delete":
                selected = _selected(text)
                for key in [key for key, (value, _) in flows.items() if selected(value)]:
                    del flows[key]
            elif verb == "delete_strict":
                flows.pop(text, None)
            else:
                raise AssertionError(line)
        self._switch.changes += 1
        trouble = self._switch.trouble
        if trouble is not None and trouble.kind == "answer late":
            self._spend(trouble)
            raise TimeoutError
        return _ran()

    def _refused(self, lines: Sequence[str]) -> Ran | None:
        trouble = self._switch.trouble
        if trouble is None or trouble.kind == "answer late":
            return None
        if trouble.kind == "hang":
            self._spend(trouble)
            return _ran(code=-signal.SIGALRM)
        if trouble.kind == "unreachable":
            self._spend(trouble)
            return _ran(f"ovs-ofctl: {BRIDGE}: failed to connect to socket", 1)
        for line in lines:
            # A full table: the first flow of a port is refused.
            value = re.match(r"add cookie=(0xaf1001[0-9a-f]+),", line)
            if value:
                self._spend(trouble)
                return _ran(
                    "Error OFPFMFC_TABLE_FULL for: OFPT_FLOW_MOD (OF1.4) (xid=0x2): "
                    f"ADD table:82 cookie:{value[1]} actions=drop",
                    1,
                )
        return None

    def _spend(self, trouble: Trouble) -> None:
        trouble.bundles -= 1
        if not trouble.bundles:
            self._switch.trouble = None

    def _dump(self, argv: Sequence[str], stdin: str) -> Ran:
        selected = _selected(argv[-1])
        lines = [
            f" cookie={value:#x}, {_printed(key)} actions={actions}"
            for key, (value, actions) in self._switch.flows.items()
            if selected(value)
        ]
        return Ran("\n".join(lines), "", 0)

    def _count(self, argv: Sequence[str], stdin: str) -> Ran:
        selected = _selected(argv[-1])
        number = sum(selected(value) for value, _ in self._switch.flows.values())
        return Ran(f"OFPST_AGGREGATE reply: flow_count={number}", "", 0)

    def _differences(self, argv: Sequence[str], stdin: str) -> Ran:
        expected = {}
        for line in stdin.splitlines():
            if line:
                found = _LINE.fullmatch(line)
                assert found, line
                expected[found["key"]] = int(found["cookie"], 16), found["actions"]
        flows = self._switch.flows
        if expected == flows:
            return _ran()
        lines = [
            _differing("-", key, *flows[key]) for key in flows if expected.get(key) != flows[key]
        ]
        lines += [
            _differing("+", key, *expected[key])
            for key in expected
            if expected[key] != flows.get(key)
        ]
        return Ran("\n".join(lines), "", 2)


def _ran(stderr: str = "", code: int = 0) -> Ran:
    return Ran("", stderr, code)


def _printed(key: str) -> str:
    found = _KEY.fullmatch(key)
    assert found, key
    return f"table={found[1]}, priority={found[2]},{found[3]}".removesuffix(",")


def _differing(sign: str, key: str, value: int, actions: str) -> str:
    found = _KEY.fullmatch(key)
    assert found, key
    match = f"priority={found[2]},{found[3]}".removesuffix(",")
    return f"{sign}table={found[1]} {match} cookie={value:#x} actions={actions}"


def _selected(selector: str) -> Callable[[int], bool]:
    found = _SELECTED.search(selector)
    assert found, selector
    value = int(found[1], 16)
    mask = _ALL if found[2] == "-1" else int(found[2], 16)
    return lambda each: each & mask == value & mask


Command = Callable[[], None]


class Ovsdb:
    """OVSDB as the agent reads and writes it: :class:`agent_flows.l2.ovsdb.Ovsdb`."""

    def __init__(self, switch: Switch, process: Process) -> None:
        self._switch, self._process = switch, process
        self._listener: Any = None

    def start(self, listener: Any = None) -> None:
        self._listener = listener

    def check(self) -> None:
        """It always answers."""

    def settle(self) -> None:
        """ovs-vswitchd acts at once."""

    @property
    def api(self) -> Any:
        """The commands that set and remove keys of the bridge's external_ids."""
        return self

    def db_set(self, table: str, record: str, *columns: Any, if_exists: bool = False) -> Command:
        (column, values) = columns[0]
        return lambda: getattr(self._switch.bridge, column).update(values)

    def db_remove(self, table: str, record: str, column: str, *keys: str) -> Command:
        return lambda: (
            [getattr(self._switch.bridge, column).pop(key, None) for key in keys] and None
        )

    def set_rows(
        self, table: str, rows: Mapping[str, Mapping[str, Any]], *, if_exists: bool = False
    ) -> Command:
        assert table == "Port", table

        def run() -> None:
            changed = set()
            for name, columns in rows.items():
                plug = self._plug(name)
                if plug is None:
                    assert if_exists, name
                    continue
                plug.port.tag = [columns["tag"]]
                plug.port.other_config = {**plug.port.other_config, **columns["other_config"]}
                changed.add(plug.port_id)
            if changed and self._listener is not None:
                self._listener.wiring_changed(frozenset(changed))

        return run

    def transact(self, commands: Sequence[Command]) -> None:
        with self._process.around("a transaction of OVSDB"):
            for command in commands:
                command()

    def record(self, commands: Sequence[Command]) -> None:
        with self._process.around("a record in OVSDB", free=False):
            for command in commands:
                command()

    @contextlib.contextmanager
    def reading(self) -> Iterator["Ovsdb"]:
        yield self

    # The content, as of agent_flows.l2.replica.Content.

    def row(self, table: str, name: str) -> Row | None:
        if table == "Bridge":
            return self._switch.bridge if name == BRIDGE else None
        plug = self._plug(name)
        if plug is None:
            return None
        return plug.port if table == "Port" else plug.interface

    def interfaces_of(self, port_id: str) -> list[Row]:
        plug = self._switch.plugs.get(port_id)
        return [] if plug is None else [plug.interface]

    def ports_on(self, bridge: str) -> frozenset[uuid.UUID]:
        return frozenset(plug.port.uuid for plug in self._switch.plugs.values())

    def makes(self, bridge: Row) -> int:
        return 0

    def port_rows(self, bridge: str) -> Iterator[Row]:
        return iter([plug.port for plug in self._switch.plugs.values()])

    def port_of(self, interface: Row) -> uuid.UUID | None:
        plug = self._plug(interface.name)
        return None if plug is None else plug.port.uuid

    def port_ids(self) -> frozenset[str]:
        return frozenset(self._switch.plugs)

    def _plug(self, name: str) -> Plug | None:
        plugs = self._switch.plugs.values()
        return next((plug for plug in plugs if plug.interface.name == name), None)
