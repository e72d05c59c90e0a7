"""agent-flows port create and delete, with the options of ``openstack port create``."""

import argparse
import secrets
import uuid
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from agent_flows.cli import columns, refs
from agent_flows.cli.api_command import ApiCommand, ShowCommand

if TYPE_CHECKING:
    from agent_flows.cli.client import RestClient

# Neutron's default base_mac.
_BASE_MAC = (0xFA, 0x16, 0x3E)


class _KeyValues(argparse.Action):
    """``ip-address=10.0.0.5,mac-address=fa:16:3e:00:00:01``; ``allowed`` are the keys."""

    def __init__(self, *args: Any, allowed: Sequence[str], **kwargs: Any) -> None:
        self._allowed = allowed
        super().__init__(*args, **kwargs)

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        found: dict[str, str] = {}
        for pair in str(values).split(","):
            key, equals, value = pair.partition("=")
            if not equals or not value or key not in self._allowed:
                known = " and ".join(f"{name}=..." for name in self._allowed)
                raise argparse.ArgumentError(self, f"{pair!r} is not one of {known}")
            found[key.replace("-", "_")] = value
        if "ip_address" not in found:
            raise argparse.ArgumentError(self, "ip-address=... is missing")
        setattr(namespace, self.dest, [*(getattr(namespace, self.dest) or ()), found])


class CreatePort(ShowCommand):
    """Create a port, as openstack port create does; MAC address and id are made if not given.

    The server has no subnets: each address is given as --fixed-ip ip-address=ADDRESS.
    """

    examples = """
        agent-flows port create --network net1 --fixed-ip ip-address=10.0.0.11 --host compute-7 web1
        agent-flows port create --network net1 --security-group web --security-group ssh web2
        agent-flows port create --network net1 --disable-port-security -f value -c id router1
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--network", required=True, metavar="<network>", help="Network: its name or id."
        )
        parser.add_argument(
            "--fixed-ip",
            action=_KeyValues,
            allowed=("ip-address",),
            metavar="ip-address=<ip-address>",
            help="Address of the port; may be repeated.",
        )
        parser.add_argument("--mac-address", metavar="<mac-address>", help="MAC address.")
        parser.add_argument(
            "--allowed-address",
            action=_KeyValues,
            allowed=("ip-address", "mac-address"),
            metavar="ip-address=<ip-address>[,mac-address=<mac-address>]",
            help="Another address that the port may send from; may be repeated.",
        )
        groups = parser.add_mutually_exclusive_group()
        groups.add_argument(
            "--security-group",
            action="append",
            default=[],
            metavar="<security-group>",
            help="Security group: its name or id; may be repeated.",
        )
        groups.add_argument(
            "--no-security-group",
            action="store_true",
            help="No security group, which is the default here: it lets nothing in.",
        )
        parser.add_argument("--host", metavar="<host-id>", help="Host that the port is bound to.")
        parser.add_argument("--device-owner", default="", metavar="<device-owner>")
        state = parser.add_mutually_exclusive_group()
        state.add_argument("--enable", action="store_true", help="Up, the default.")
        state.add_argument("--disable", action="store_true", help="Administratively down.")
        security = parser.add_mutually_exclusive_group()
        security.add_argument(
            "--enable-port-security", action="store_true", help="Filtered, the default."
        )
        security.add_argument(
            "--disable-port-security", action="store_true", help="Neither filtered nor checked."
        )
        parser.add_argument("name", metavar="<name>", help="Name of the port.")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        body: dict[str, object] = {
            "name": parsed_args.name,
            "network_id": refs.resolve(self.api, "networks", parsed_args.network),
            "mac_address": parsed_args.mac_address or _mac(),
            "fixed_ips": parsed_args.fixed_ip or [],
            "allowed_address_pairs": parsed_args.allowed_address or [],
            "security_groups": [
                refs.resolve(self.api, "security-groups", each)
                for each in parsed_args.security_group
            ],
            "binding:host_id": parsed_args.host,
            "device_owner": parsed_args.device_owner,
            "admin_state_up": not parsed_args.disable,
            "port_security_enabled": not parsed_args.disable_port_security,
        }
        port = self.api.put("ports", str(uuid.uuid4()), body)
        shown = {
            **port,
            "network_id": self.named(parsed_args, "networks", port["network_id"]),
            "security_groups": self.named(parsed_args, "security-groups", port["security_groups"]),
            "fixed_ips": columns.Addresses(port["fixed_ips"]),
            "allowed_address_pairs": columns.Addresses(port["allowed_address_pairs"]),
            "sync_reason": columns.Error(port["sync_reason"]),
            "reason": port["reason"],
        }
        return tuple(shown), tuple(shown.values())


class DeletePorts(ApiCommand):
    """Delete ports; their hosts remove their flows."""

    examples = """
        agent-flows port delete web1
        agent-flows port delete web1 4e8e5957
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "ports",
            metavar="<port>",
            nargs="+",
            help="A port: its name, its id, or the beginning of its id.",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        client: RestClient = self.app.client_manager.agent_flows  # type: ignore[attr-defined]

        def delete(port: str) -> None:
            client.delete("ports", refs.resolve(client, "ports", port))

        self.for_each(parsed_args.ports, delete, "deleted")


def _mac() -> str:
    return ":".join(f"{byte:02x}" for byte in (*_BASE_MAC, *secrets.token_bytes(3)))
