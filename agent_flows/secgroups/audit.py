"""Compares every flow of a bridge; corrects what differs, or names the ports it concerns."""

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from contextlib import AbstractContextManager, ExitStack
from typing import Protocol

from agent_flows.errors import ErrorType
from agent_flows.openflow import cookie, flow
from agent_flows.openflow.cookie import Kind
from agent_flows.openflow.dump import FlowEntry
from agent_flows.openflow.flow import Flow
from agent_flows.openflow.ofctl import Ofctl
from agent_flows.report import TaskError
from agent_flows.secgroups import difference, strangers
from agent_flows.secgroups.conjunction import Conjunctions
from agent_flows.secgroups.difference import Difference
from agent_flows.secgroups.installed import Installed, flows
from agent_flows.secgroups.plan import Plan
from agent_flows.secgroups.strangers import Bridge


class NetworkFlows(Protocol):
    """The flows of networks on our own bridge."""

    def flow_count(self) -> int: ...

    def held_flows(self) -> AbstractContextManager[Mapping[int, Sequence[Flow]]]:
        """Them by cookie; none of them changes inside the block."""

    def uplinks(self) -> Set[int]:
        """The ofports that lead to the physical networks."""


class Audit:
    """Without ``networks`` the flows of networks are not judged."""

    def __init__(
        self, ofctl: Ofctl, base: Mapping[int, str], networks: NetworkFlows | None, bridge: Bridge
    ) -> None:
        self._ofctl = ofctl
        self._base = [flow.with_cookie(text, each) for each, text in base.items()]
        self._networks = networks
        self._bridge = bridge

    def counts(self, installed: Installed) -> bool:
        """Whether the bridge holds as many flows as it should: one call, however many."""
        expected = len(self._base) + installed.count()
        if self._networks is None:
            return self._ofctl.count(*cookie.FIREWALL) == expected
        counted = cookie.ANY if self._bridge.removes else cookie.OURS
        return self._ofctl.count(*counted) == expected + self._networks.flow_count()

    def compare(
        self,
        installed: Installed,
        conjunctions: Conjunctions,
        kept: Set[int],
        *,
        judging: bool,
        holding: bool = True,
    ) -> Difference:
        """Compare every flow. ``kept`` are cookies of flows that ports of an older process share;
        with ``judging`` strangers' flows are judged. Unless ``holding``, the flows of networks may
        change meanwhile, and then differ.

        Raises :class:`SwitchError` or :class:`Timeout`.
        """
        with ExitStack() as stack:
            held: Mapping[int, Sequence[Flow]] = {}
            if self._networks is not None:
                held = stack.enter_context(self._networks.held_flows())
            of_networks = [
                flow.with_cookie(str(each), value) for value in held for each in held[value]
            ]
            provisioned = {cookie.serial(value) for value in held if held[value]}
            if not holding:
                stack.close()
            expected = [*self._base, *flows(installed, conjunctions), *of_networks]
            found = difference.of(self._ofctl.differences(expected))

        def needed(each: FlowEntry) -> bool:
            """Not compiled here, but some port may need it."""
            match cookie.kind(each.cookie):
                case Kind.NETWORK if self._networks is None:
                    return True
                case Kind.NETWORK:
                    return each.cookie in kept and cookie.serial(each.cookie) not in provisioned
                case Kind.PORT:
                    ofport = cookie.serial(each.cookie)
                    return each.cookie in installed.strays.get(ofport, ())
            return each.cookie in kept

        return Difference(
            found.missing,
            tuple(each for each in found.surplus if not needed(each)),
            self._bridge.strange(found.strange, _ofports(installed)) if judging else (),
            found.changed,
        )

    def removable(self, found: Difference) -> Sequence[FlowEntry]:
        """What of ``found`` we may remove."""
        return (*found.surplus, *(found.strange if self._bridge.removes else ()))

    def correction(
        self, found: Difference, installed: Installed, port_ids: Collection[str]
    ) -> Plan:
        """What corrects ``found`` as far as we may, on behalf of these ports."""
        everyone = frozenset(port_ids)
        surplus = self.removable(found)
        owners: dict[int, Set[str]] = {
            each.flows.ofport: frozenset({port_id})
            for port_id, each in installed.ports.items()
            if port_id in everyone
        }
        lines = [flow.delete_key(each.key) for each in surplus]
        blamed: list[Set[str]] = [everyone] * len(surplus)
        for each in found.missing:
            lines.append(flow.add(f"{each.key} actions={each.actions}", each.cookie))
            own = cookie.kind(each.cookie) == Kind.PORT
            blamed.append(owners.get(cookie.serial(each.cookie), everyone) if own else everyone)
        return Plan(lines, blamed, installed)

    def errors(
        self, found: Difference, installed: Installed, port_ids: Iterable[str]
    ) -> dict[str, TaskError]:
        """What of ``found`` is wrong for which of these ports."""
        errors: dict[str, TaskError] = {}
        ofports = _ofports(installed)
        for port_id in port_ids:
            port = installed.ports.get(port_id)
            if port is None:
                errors[port_id] = TaskError(
                    ErrorType.NOT_AS_COMPILED, "the port's flows were not applied"
                )
                continue
            ofport = port.flows.ofport
            strange = [e for e in found.strange if self._bridge.decides(e, ofport, ofports)]
            error = strangers.error(strange) if strange else found.error_of(ofport, port.flows.vlan)
            if error is not None:
                errors[port_id] = error
        return errors

    def drifts(self, found: Difference, installed: Installed) -> dict[str, TaskError]:
        """What of ``found`` concerns which port, for ports that were as compiled before."""
        ofports = _ofports(installed)
        drifts: dict[str, TaskError] = {}
        for port_id, port in installed.ports.items():
            ofport = port.flows.ofport
            lines = found.of_port(ofport, port.flows.vlan)
            lines += [
                ("of another program", entry)
                for entry in found.strange
                if self._bridge.decides(entry, ofport, ofports)
            ]
            if lines:
                drifts[port_id] = difference.drift(lines)
        return drifts


def _ofports(installed: Installed) -> frozenset[int]:
    return frozenset(each.flows.ofport for each in installed.ports.values())
