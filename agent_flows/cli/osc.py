"""The commands for Neutron's side, as a plugin of the ``openstack`` client.

``openstack network port task list --port ID --state FAILED``: the same
commands as ``agent-flows``, on Neutron's API and with the client's own
authentication. OpenStackClient finds this module by the entry point
``openstack.cli.extension`` and the commands by ``openstack.agent_flows.v2``.
"""

import abc
import argparse
from collections.abc import Mapping
from typing import Any, ClassVar

from cliff.hooks import CommandHook

from agent_flows.cli import columns
from agent_flows.cli.client import Client, Resource, path_of
from agent_flows.cli.failure import CommandFailed, ExitCode
from agent_flows.cli.port import SYNC

# OpenStackClient reads these from a plugin.
API_NAME = "agent_flows"
API_VERSIONS = ("2.0", "2")
API_VERSION_OPTION = "os_agent_flows_api_version"
DEFAULT_API_VERSION = "2.0"

_IN_NEUTRON = {"agents": "agent-flows-agents"}


def build_option_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """No options of our own: the API is Neutron's."""
    return parser


def make_client(instance: Any) -> "NeutronClient":
    """The client of the commands; ``instance`` is OpenStackClient's client manager."""
    return NeutronClient(instance.network)


class NeutronClient(Client):
    """Neutron's API; its adapter is openstacksdk's proxy."""

    _error_key = "NeutronError"
    shortens_tasks = False

    # ``/agents`` are Neutron's own agents.

    def find(
        self, collection: str, filters: Mapping[str, object], limit: int | None = None
    ) -> list[Resource]:
        return super().find(_IN_NEUTRON.get(collection, collection), filters, limit)

    def show(self, collection: str, resource_id: str) -> Resource:
        return super().show(_IN_NEUTRON.get(collection, collection), resource_id)

    def beginning(self, collection: str, prefix: str) -> list[Resource]:
        """Neutron has no filter for that."""
        found = self.find(collection, {"fields": ("id", "name")})
        return [each for each in found if each["id"].startswith(prefix)]

    def resync(self, port_id: str) -> None:
        self._request("PUT", path_of("ports", port_id) + "/resync")

    def sync(self, collection: str, resource_id: str) -> Resource:
        """How far the ports of a security group or network are in sync."""
        answer = self._request("GET", path_of(collection, resource_id) + "/sync")
        sync: Resource = answer["sync"]
        return sync

    def _unreachable(self, exc: Exception) -> str:
        return f"Neutron's API does not answer: {exc}"


class _Shows(CommandHook):
    """Adds to what a command of the client shows of a resource. cliff finds a hook by an entry
    point as ``openstack.cli.port_show``."""

    @abc.abstractmethod
    def find(self, client: "NeutronClient", resource_id: str) -> Mapping[str, Any]:
        """The columns of the resource; none without our extension."""

    def get_parser(self, parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
        return parser

    def get_epilog(self) -> str:
        return ""

    def before(self, parsed_args: argparse.Namespace) -> argparse.Namespace:
        return parsed_args

    def after(self, parsed_args: argparse.Namespace, return_code: Any) -> Any:
        """``return_code`` of a command that shows something is its columns and values."""
        shown, values = return_code
        client: NeutronClient = self.cmd.app.client_manager.agent_flows  # type: ignore[attr-defined]
        ours = self.find(client, values[list(shown).index("id")])
        return (*shown, *ours), (*values, *ours.values())


class ShowSyncState(_Shows):
    """``openstack port show``.

    The client and its library show fixed lists of fields, so this reads the port a second time.
    """

    def find(self, client: "NeutronClient", resource_id: str) -> Mapping[str, Any]:
        port = client.show("ports", resource_id)
        shown = {"sync_state": lambda state: state, **SYNC}
        return {name: show(port[name]) for name, show in shown.items() if name in port}


class ShowSyncOfGroup(_Shows):
    """``openstack security group show``."""

    collection: ClassVar[str] = "security-groups"

    def find(self, client: "NeutronClient", resource_id: str) -> Mapping[str, Any]:
        try:
            return {"sync": columns.Rollup(client.sync(self.collection, resource_id))}
        except CommandFailed as exc:
            # The command itself succeeded.
            absent = exc.exit_code is ExitCode.NOT_FOUND
            return {} if absent else {"sync": f"could not be read: {exc}"}


class ShowSyncOfNetwork(ShowSyncOfGroup):
    """``openstack network show``."""

    collection = "networks"
