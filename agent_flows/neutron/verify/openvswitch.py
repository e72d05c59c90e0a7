"""``firewall_driver = openvswitch``: Neutron's own, which swallows what the switch refuses."""

from collections.abc import Mapping
from typing import Any

from neutron.common import utils
from oslo_config import cfg

from agent_flows.engine.task import TaskFailed
from agent_flows.neutron.interfaces import Interface
from agent_flows.neutron.resource_cache import SecurityGroupInfo
from agent_flows.neutron.verify import compare
from agent_flows.neutron.verify.compare import Demand, Dump
from agent_flows.neutron.verify.driver import Finding, each_alone
from agent_flows.neutron.verify.expected_flows import Groups, Writer, conjunction_ids, is_filtered
from agent_flows.openflow.ofctl import Ofctl, SwitchError, SwitchUnreachable, Timeout
from agent_flows.report import TaskError


class OpenvswitchFirewall:
    """Compares the bridge with what the driver's own generators say.

    ``bridge`` is the agent's own: the driver's flows have its ``default_cookie``.
    """

    def __init__(self, bridge: Any, ofctl: Ofctl, neutron: SecurityGroupInfo) -> None:
        self._bridge, self._ofctl, self._neutron = bridge, ofctl, neutron
        # What each port was found to demand, and of what that followed.
        self._demands: dict[str, tuple[object, Demand]] = {}
        self._permitted = utils.parse_permitted_ethertypes(
            cfg.CONF.SECURITYGROUP.permitted_ethertypes
        )

    def inspect(self, ports: Mapping[str, Interface]) -> Mapping[str, Finding]:
        if not ports:
            return {}
        cookie, dump = self._look()
        entries = dump.entries(cookie)
        # Until the driver has been there, the agent has not asked the server either for what the
        # cache lacks: asking for it would double the load just when many ports come.
        programmed = {id_: each for id_, each in ports.items() if each.ofport in entries}
        return {
            id_: compare.no_entry(dump, each.ofport, cookie)
            for id_, each in ports.items()
            if id_ not in programmed
        } | self._judge(programmed, dump, cookie)

    def left_over(self, ofports: Mapping[str, int]) -> Mapping[str, TaskError]:
        if not ofports:
            return {}
        for port_id in ofports:
            self._demands.pop(port_id, None)
        cookie, dump = self._look()
        found = {id_: compare.left_over(dump, each, cookie) for id_, each in ofports.items()}
        return {id_: error for id_, error in found.items() if error is not None}

    def _judge(self, ports: Mapping[str, Interface], dump: Dump, cookie: int) -> dict[str, Finding]:
        if not ports:
            return {}
        known = self._neutron.of(list(ports))
        writer = Writer(self._bridge, self._permitted, Groups(known), conjunction_ids())

        def judge(port_id: str) -> Finding:
            interface, device = ports[port_id], known.devices.get(port_id)
            if port_id in known.unreadable:
                return Finding(missing=known.unreadable[port_id])
            if interface.mac is None and is_filtered(device):
                return _NO_MAC
            demand = self._demand(writer, port_id, device, interface)
            return compare.judge(demand, dump, interface.ofport, cookie)

        return each_alone(ports, judge)

    def _demand(
        self, writer: Writer, port_id: str, device: Mapping[str, Any] | None, interface: Interface
    ) -> Demand:
        """Made anew only if it must be: it costs more than the look itself."""
        basis = writer.basis(device, interface)
        known = self._demands.get(port_id)
        # With this option it also depends on the numbers of patch ports.
        if known is None or known[0] != basis or cfg.CONF.AGENT.explicitly_egress_direct:
            known = basis, writer.demand(port_id, device, interface)
            self._demands[port_id] = known
        return known[1]

    def _look(self) -> tuple[int, Dump]:
        try:
            lines = self._ofctl.dump(0, 0)
        except Timeout as exc:
            raise TaskFailed(TaskError("Timeout", str(exc)), whole_batch=True) from exc
        except SwitchUnreachable as exc:
            error = TaskError("SwitchUnreachable", exc.message, exc.detail)
            raise TaskFailed(error, whole_batch=True) from exc
        except SwitchError as exc:
            error = TaskError("SwitchError", exc.message, exc.detail)
            raise TaskFailed(error, whole_batch=True) from exc
        except OSError as exc:
            error = TaskError("SwitchError", "ovs-ofctl could not be run", str(exc))
            raise TaskFailed(error, whole_batch=True) from exc
        return self._bridge.default_cookie, Dump(self._bridge.br_name, lines)


_NO_MAC = Finding(
    missing=TaskError(
        "NoAttachedMac", "the interface's external_ids have no attached-mac, so nothing filters it"
    )
)
