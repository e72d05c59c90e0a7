"""``/v2.0/tasks``, ``/v2.0/agent-flows-agents``, ``sync_state`` of a port and
``PUT /v2.0/ports/{id}/resync``.

Neutron finds the class by the file's name.
"""

from typing import Any

from neutron import policy
from neutron.api import api_common, extensions
from neutron.api.v2 import base, resource
from neutron_lib.api import extensions as api_extensions
from neutron_lib.api import faults
from neutron_lib.plugins import directory

from agent_flows.neutron.server import api_definition, policies, task_listing

_RESYNC = api_definition.RESYNC
_ASKED = 202


class ResyncController:
    """The member action; 202 when the request was sent to the port's agent."""

    def resync(self, request: Any, body: object = None, **named: str) -> dict[str, Any]:
        # Raises not found for a port that the caller may not see.
        port = directory.get_plugin().get_port(request.context, named["port_id"])
        policy.enforce(request.context, policies.RESYNC, port, pluralized=api_definition.PORTS)
        answer: dict[str, Any] = directory.get_plugin(api_definition.PLUGIN_TYPE).resync(port)
        return answer


class PageOfTasks(api_common.PaginationNativeHelper):  # type: ignore[misc]
    """Neutron's pages, with a limit even if ``pagination_max_limit`` is infinite, its default.

    The history of a whole cloud is millions of tasks.
    """

    def __init__(self, request: Any, primary_key: str) -> None:
        super().__init__(request, primary_key)
        limit, _ = api_common.get_limit_and_marker(request)
        self.limit = min(limit or task_listing.MAX_LIMIT, task_listing.MAX_LIMIT)
        self.marker = request.GET.get("marker")


class PagedController(base.Controller):  # type: ignore[misc]
    """Neutron's controller of a collection, that always answers a page."""

    def _get_pagination_helper(self, request: Any) -> PageOfTasks:
        return PageOfTasks(request, self._primary_key)


class Tasks(api_extensions.APIExtensionDescriptor):  # type: ignore[misc]
    """The descriptor that Neutron loads."""

    api_definition = api_definition

    @classmethod
    def get_resources(cls) -> list[extensions.ResourceExtension]:
        plugin = directory.get_plugin(api_definition.PLUGIN_TYPE)
        attributes = api_definition.RESOURCE_ATTRIBUTE_MAP[api_definition.TASKS]
        listing = PagedController(
            plugin,
            api_definition.TASKS,
            api_definition.TASK,
            attributes,
            allow_pagination=True,
            allow_sorting=True,
        )
        tasks = resource.Resource(listing, faults.FAULT_MAP)
        action = resource.Resource(
            ResyncController(), faults.FAULT_MAP, action_status={_RESYNC: _ASKED}
        )
        of_agents = api_definition.RESOURCE_ATTRIBUTE_MAP[api_definition.AGENTS]
        agents = base.create_resource(
            api_definition.AGENTS, api_definition.AGENT, plugin, of_agents, allow_pagination=True
        )
        port = {"member_name": api_definition.PORT, "collection_name": api_definition.PORTS}
        return [
            extensions.ResourceExtension(api_definition.TASKS, tasks, attr_map=attributes),
            extensions.ResourceExtension(
                api_definition.AGENTS.replace("_", "-"), agents, attr_map=of_agents
            ),
            extensions.ResourceExtension(
                _RESYNC, action, port, collection_methods={_RESYNC: "PUT"}
            ),
        ]
