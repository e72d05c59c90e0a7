"""The commands for Neutron's side, as a plugin of the ``openstack`` client.

``openstack network agent flow task list --port ID --state FAILED``: the same
commands as ``agent-flows``, on Neutron's API and with the client's own
authentication. OpenStackClient finds this module by the entry point
``openstack.cli.extension`` and the commands by ``openstack.agent_flows.v2``.
"""

import argparse
from collections.abc import Mapping
from typing import Any

from cliff.hooks import CommandHook

from agent_flows.cli.client import Client, Resource, path_of

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

    # ``/agents`` are Neutron's own agents.

    def find(
        self, collection: str, filters: Mapping[str, object], limit: int | None = None
    ) -> list[Resource]:
        return super().find(_IN_NEUTRON.get(collection, collection), filters, limit)

    def show(self, collection: str, resource_id: str) -> Resource:
        return super().show(_IN_NEUTRON.get(collection, collection), resource_id)

    def resync(self, port_id: str) -> None:
        self._request("PUT", path_of("ports", port_id) + "/resync")

    def _unreachable(self, exc: Exception) -> str:
        return f"Neutron's API does not answer: {exc}"


class ShowSyncState(CommandHook):
    """Adds ``sync_state`` to what ``openstack port show`` shows.

    The client and its library show fixed lists of fields, so this reads the
    port a second time. cliff finds the hook by the entry point
    ``openstack.cli.port_show``.
    """

    def get_parser(self, parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
        return parser

    def get_epilog(self) -> str:
        return ""

    def before(self, parsed_args: argparse.Namespace) -> argparse.Namespace:
        return parsed_args

    def after(self, parsed_args: argparse.Namespace, return_code: Any) -> Any:
        """``return_code`` of a command that shows something is its columns and values."""
        columns, values = return_code
        client: NeutronClient = self.cmd.app.client_manager.agent_flows  # type: ignore[attr-defined]
        port = client.show("ports", values[list(columns).index("id")])
        if "sync_state" not in port:
            return return_code
        return (*columns, "sync_state"), (*values, port["sync_state"])
