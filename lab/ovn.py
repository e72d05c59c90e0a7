"""OVN on a switch of the lab: its two databases, ovn-northd and ovn-controller, all private."""

import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lab import json_rpc
from lab.lifetime import Lifetime
from lab.model import Rule
from lab.process import CommandFailed, Daemon, run
from lab.switch import Switch
from lab.vm import Plugged

_SCHEMAS = Path("/usr/share/ovn")
_READY_SECONDS = 30
_COMMAND_SECONDS = 90

# Priorities as Neutron's driver has them (neutron/common/ovn/constants.py).
_ALLOW, _DROP = 1002, 1001


class Ovn(Lifetime):
    """A whole OVN with one chassis, which is ``switch``.

    ``bridge_mappings``: the bridge of each physical network.
    """

    def __init__(self, switch: Switch, bridge_mappings: Mapping[str, str]) -> None:
        super().__init__()
        self.switch = switch
        self._mappings = bridge_mappings
        self.directory = Path()

    def _start(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=f"{self.switch.namespace.name}-ovn-"))
        self._stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
        north, south = self._database("nb"), self._database("sb")
        northd = self._daemon("ovn-northd", f"--ovnnb-db={north}", f"--ovnsb-db={south}")
        northd.start()
        mappings = ",".join(f"{net}:{bridge}" for net, bridge in self._mappings.items())
        external_ids = {
            "system-id": "bench",
            "ovn-remote": south,
            "ovn-encap-type": "geneve",
            "ovn-encap-ip": "127.0.0.1",
            "ovn-bridge-datapath-type": "netdev",
            "ovn-bridge-mappings": mappings,
        }
        words = [f'external_ids:{name}="{value}"' for name, value in external_ids.items()]
        self.switch.vsctl("set", "Open_vSwitch", ".", *words)
        self.switch.add_bridge("br-int")
        controller = self._daemon("ovn-controller", self.switch.database)
        controller.start()
        controller.ready(self._serves, _READY_SECONDS)

    def _database(self, name: str) -> str:
        """Start the database, and give the connection to it."""
        file, socket = self.directory / f"{name}.db", self.directory / f"{name}.sock"
        run(["ovsdb-tool", "create", str(file), str(_SCHEMAS / f"ovn-{name}.ovsschema")])
        remote = f"--remote=punix:{socket}"
        daemon = self._daemon("ovsdb-server", str(file), remote, name=f"ovsdb-{name}")
        daemon.start()
        daemon.ready(socket.exists, _READY_SECONDS)
        return f"unix:{socket}"

    def _daemon(self, program: str, *args: str, name: str = "") -> Daemon:
        name = name or program
        argv = [
            program,
            *args,
            # ovn-controller has no such option: its socket is in OVN_RUNDIR.
            *([] if name == "ovn-controller" else [f"--unixctl={self.directory}/{name}.ctl"]),
            f"--log-file={self.directory}/{name}.log",
            "-vconsole:off",
        ]
        env = {
            "OVS_RUNDIR": str(self.switch.run_dir),
            "OVN_RUNDIR": str(self.directory),
            "OVN_LOGDIR": str(self.directory),
        }
        log = self.directory / f"{name}.out"
        daemon = Daemon(name, self.switch.namespace.argv(argv), log, env)
        self._stack.callback(daemon.stop)
        return daemon

    def _serves(self) -> bool:
        """Whether the chassis is known: before, ``--wait=hv`` has nothing to wait for."""
        south = f"--db=unix:{self.directory}/sb.sock"
        try:
            return bool(run(["ovn-sbctl", south, "--bare", "--columns=name", "list", "Chassis"]))
        except CommandFailed:
            return False

    def nbctl(self, *words: str) -> str:
        """``ovn-nbctl`` on the northbound database; ``--wait=hv`` waits for ovn-controller."""
        database = f"--db=unix:{self.directory}/nb.sock"
        return run(["ovn-nbctl", "--timeout=60", database, *words], timeout=_COMMAND_SECONDS)

    def add_network(self, name: str, physical_network: str, vlan: int) -> None:
        """A logical switch on a VLAN of a physical network."""
        uplink = f"{name}-localnet"
        self.nbctl(
            *("ls-add", name),
            *("--", "lsp-add", name, uplink, "", str(vlan)),
            *("--", "lsp-set-type", uplink, "localnet"),
            *("--", "lsp-set-addresses", uplink, "unknown"),
            *("--", "lsp-set-options", uplink, f"network_name={physical_network}"),
        )

    def add_group(
        self, name: str, rules: Iterable[Rule], network: str, ports: Sequence[Plugged]
    ) -> None:
        """Ports on a network whose port group has the ACLs of ``rules``.

        A rule with a remote group has the members of this one: the address set
        ``<name>_members``. (northd makes ``<name>_ip4`` itself: another of that name stops it.)
        """
        transaction = ["pg-add", name]
        members = f"{name}_members"
        addresses = [address for port in ports for address in port.addresses]
        transaction += ["--", "create", "Address_Set", f"name={members}"]
        transaction += [f"addresses={','.join(f'{chr(34)}{each}{chr(34)}' for each in addresses)}"]
        for port in ports:
            address = " ".join([port.mac, *port.addresses])
            transaction += [
                *("--", "lsp-add", network, port.port_id),
                *("--", "lsp-set-addresses", port.port_id, address),
                *("--", "lsp-set-port-security", port.port_id, address),
            ]
        self.nbctl(*transaction)
        self.nbctl("pg-set-ports", name, *(port.port_id for port in ports))
        for direction, way in (("to-lport", "outport"), ("from-lport", "inport")):
            self.nbctl("acl-add", name, direction, str(_DROP), f"{way} == @{name} && ip", "drop")
        for rule in rules:
            self.add_acl(name, rule)
        self.nbctl("--wait=hv", "sync")

    def add_acl(self, group: str, rule: Rule, *, wait: bool = False) -> None:
        """``wait``: until it is in force on the chassis."""
        direction = "to-lport" if rule["direction"] == "ingress" else "from-lport"
        waiting = ["--wait=hv"] if wait else []
        self.nbctl(
            *waiting, "acl-add", group, direction, str(_ALLOW), match_of(group, rule),
            "allow-related",
        )  # fmt: skip

    def add_member(self, group: str, address: str) -> None:
        """One address more in the address set of a group; waits until it is in force."""
        self.nbctl(
            "--wait=hv", "add", "Address_Set", f"{group}_members", "addresses", f'"{address}"'
        )

    def is_any_down(self) -> bool:
        """Whether a port is not up: its flows are not all installed (ovn-nb(5), column ``up``)."""
        query = {
            "op": "select",
            "table": "Logical_Switch_Port",
            "where": [["up", "!=", True], ["type", "==", ""]],
            "columns": ["_uuid"],
        }
        answer = json_rpc.call(self.directory / "nb.sock", "transact", ["OVN_Northbound", query])
        if not isinstance(answer, list) or "rows" not in answer[0]:
            raise ValueError(answer)
        return bool(answer[0]["rows"])


def match_of(group: str, rule: Rule) -> str:
    """A rule as Neutron's driver writes it (neutron/common/ovn/acl.py)."""
    ingress = rule["direction"] == "ingress"
    version = "ip4" if rule["ethertype"] == "IPv4" else "ip6"
    parts = [f"{'outport' if ingress else 'inport'} == @{group}", version]
    side = f"{version}.{'src' if ingress else 'dst'}"
    if "remote_group_id" in rule:
        parts.append(f"{side} == ${group}_members")
    if prefix := rule.get("remote_ip_prefix"):
        parts.append(f"{side} == {prefix}")
    if protocol := rule.get("protocol"):
        parts.append(
            "icmp4"
            if protocol == "icmp" and version == "ip4"
            else "icmp6"
            if protocol == "icmp"
            else str(protocol)
        )
        low, high = rule.get("port_range_min"), rule.get("port_range_max")
        if low is not None:
            name = f"{protocol}.dst"
            parts.append(
                f"{name} == {low}" if low == high else f"{name} >= {low} && {name} <= {high}"
            )
    return " && ".join(parts)
