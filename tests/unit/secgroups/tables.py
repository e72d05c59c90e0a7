"""A switch's tables as the plain rules of OpenFlow have them: a key holds one flow, a bundle
is all or nothing. It has no packets; what packets do is asked of a real switch."""

import re
from collections.abc import Mapping, Sequence

from agent_flows.openflow import cookie, dump
from agent_flows.openflow.dump import Differences, FlowEntry
from agent_flows.openflow.ofctl import Refusal, SwitchError

_ADD = re.compile(r"add cookie=(0x[0-9a-f]+),(.*) actions=(.*)")
_DELETE = re.compile(r"delete cookie=(0x[0-9a-f]+)/(0x[0-9a-f]+)")
_DELETE_STRICT = re.compile(r"delete_strict (.*)")


class Tables:
    """Takes the place of ``Ofctl``."""

    def __init__(self) -> None:
        self.flows: dict[str, tuple[int, str]] = {}
        self.bundles: list[list[str]] = []
        self.refuse: str | None = None
        self.no_forward: set[int] = set()

    def seal(self, ofport: int) -> None:
        self.no_forward.add(ofport)

    def unseal(self, ofport: int) -> None:
        self.no_forward.remove(ofport)

    def sealed(self) -> frozenset[int]:
        return frozenset(self.no_forward)

    def bundle(self, lines: Sequence[str]) -> None:
        if not lines:
            return
        self.bundles.append(list(lines))
        flows = dict(self.flows)
        for line in lines:
            if self.refuse and line.startswith("add ") and self.refuse in line:
                number = _ADD.match(line)
                assert number
                refusal = Refusal("OFPFMFC_TABLE_FULL", line, cookie=int(number[1], 16))
                raise SwitchError("the switch refused a flow", line, [refusal])
            self._change(flows, line)
        self.flows = flows

    def _change(self, flows: dict[str, tuple[int, str]], line: str) -> None:
        if added := _ADD.fullmatch(line):
            value = int(added[1], 16)
            replaced = flows.get(added[2], (value, ""))[0]
            # Of two ports' flows with one key, or two kinds', the later would
            # silently replace the earlier.
            assert cookie.kind(replaced) == cookie.kind(value), line
            if cookie.kind(value) == cookie.Kind.PORT:
                # But for a changed flow that is written again.
                assert added[2] not in flows or replaced == value, line
            flows[added[2]] = (value, added[3])
        elif deleted := _DELETE.fullmatch(line):
            value, mask = int(deleted[1], 16), int(deleted[2], 16)
            for key in [k for k, (held, _) in flows.items() if held & mask == value]:
                del flows[key]
        else:
            strict = _DELETE_STRICT.fullmatch(line)
            assert strict, line
            del flows[strict[1]]

    def dump(self, wanted: int = cookie.OURS[0], mask: int = cookie.OURS[1]) -> list[FlowEntry]:
        return [
            _entry(key, value, actions)
            for key, (value, actions) in self.flows.items()
            if value & mask == wanted
        ]

    def differences(self, expected: Sequence[str]) -> Differences:
        wanted: dict[str, tuple[int, str]] = {}
        for line in expected:
            self._change(wanted, f"add {line}")
        return Differences(_alone_in(self.flows, wanted), _alone_in(wanted, self.flows))

    def count(self, wanted: int, mask: int) -> int:
        return len(self.dump(wanted, mask))


def _alone_in(
    flows: Mapping[str, tuple[int, str]], others: Mapping[str, tuple[int, str]]
) -> list[FlowEntry]:
    return [
        _entry(key, value, actions)
        for key, (value, actions) in flows.items()
        if others.get(key) != (value, actions)
    ]


def _entry(key: str, value: int, actions: str) -> FlowEntry:
    return dump.read(f" cookie={value:#x}, {key.replace(',', ', ', 1)} actions={actions}")
