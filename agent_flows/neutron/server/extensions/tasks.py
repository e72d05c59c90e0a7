"""``/v2.0/tasks``, ``/v2.0/problems``, ``/v2.0/agent-flows-agents``, what a port shows of its
state, ``sync`` below a security group and a network, and ``PUT /v2.0/ports/{id}/resync``.

Neutron finds the class by the file's name.
"""

from typing import Any, NoReturn

from neutron import policy
from neutron.api import api_common, extensions
from neutron.api.v2 import base, resource
from neutron_lib.api import extensions as api_extensions
from neutron_lib.api import faults
from neutron_lib.plugins import directory
from webob import exc

from agent_flows.neutron.server import api_definition, native_page, policies

_RESYNC = api_definition.RESYNC
_SYNC = api_definition.SYNC
_ASKED = 202


class ResyncController:
    """The member action; 202 when the request was sent to the port's agent."""

    def resync(self, request: Any, body: object = None, **named: str) -> dict[str, Any]:
        # Raises not found for a port that the caller may not see.
        port = directory.get_plugin().get_port(request.context, named["port_id"])
        policy.enforce(request.context, policies.RESYNC, port, pluralized=api_definition.PORTS)
        answer: dict[str, Any] = directory.get_plugin(api_definition.PLUGIN_TYPE).resync(port)
        return answer


class SyncController:
    """``GET /v2.0/networks/{id}/sync`` and the like, of a ``resource`` of Neutron's."""

    def __init__(self, resource: str) -> None:
        self._resource = resource

    def index(self, request: Any, **named: str) -> dict[str, Any]:
        id_ = named[f"{self._resource}_id"]
        # Raises not found for one that the caller may not see.
        owned = getattr(directory.get_plugin(), f"get_{self._resource}")(request.context, id_)
        action = f"get_{self._resource}:{_SYNC}"
        policy.enforce(request.context, action, owned, pluralized=f"{self._resource}s")
        plugin = directory.get_plugin(api_definition.PLUGIN_TYPE)
        return {_SYNC: plugin.sync(request.context, self._resource, id_)}

    def _refuse(self, request: Any, **named: Any) -> NoReturn:
        raise exc.HTTPMethodNotAllowed

    # Neutron routes every method to a controller.
    show = create = update = delete = _refuse


class LimitedPage(api_common.PaginationNativeHelper):  # type: ignore[misc]
    """Neutron's pages, with a limit even if ``pagination_max_limit`` is infinite, its default.

    The history of a whole cloud is millions of tasks.
    """

    def __init__(self, request: Any, primary_key: str) -> None:
        super().__init__(request, primary_key)
        limit, _ = api_common.get_limit_and_marker(request)
        self.limit = min(limit or native_page.MAX_LIMIT, native_page.MAX_LIMIT)
        self.marker = request.GET.get("marker")


class PagedController(base.Controller):  # type: ignore[misc]
    """Neutron's controller of a collection, that always answers a page."""

    def _get_pagination_helper(self, request: Any) -> LimitedPage:
        return LimitedPage(request, self._primary_key)


def _sync_of(name: str) -> extensions.ResourceExtension:
    parent = {"member_name": name, "collection_name": f"{name}s".replace("_", "-")}
    made = resource.Resource(SyncController(name), faults.FAULT_MAP)
    return extensions.ResourceExtension(_SYNC, made, parent)


def _paged(plugin: Any, collection: str, singular: str) -> extensions.ResourceExtension:
    attributes = api_definition.RESOURCE_ATTRIBUTE_MAP[collection]
    listing = PagedController(
        plugin, collection, singular, attributes, allow_pagination=True, allow_sorting=True
    )
    made = resource.Resource(listing, faults.FAULT_MAP)
    return extensions.ResourceExtension(collection, made, attr_map=attributes)


class Tasks(api_extensions.APIExtensionDescriptor):  # type: ignore[misc]
    """The descriptor that Neutron loads."""

    api_definition = api_definition

    @classmethod
    def get_resources(cls) -> list[extensions.ResourceExtension]:
        plugin = directory.get_plugin(api_definition.PLUGIN_TYPE)
        action = resource.Resource(
            ResyncController(), faults.FAULT_MAP, action_status={_RESYNC: _ASKED}
        )
        of_agents = api_definition.RESOURCE_ATTRIBUTE_MAP[api_definition.AGENTS]
        agents = base.create_resource(
            api_definition.AGENTS, api_definition.AGENT, plugin, of_agents, allow_pagination=True
        )
        port = {"member_name": api_definition.PORT, "collection_name": api_definition.PORTS}
        return [
            _sync_of(api_definition.SECURITY_GROUP),
            _sync_of(api_definition.NETWORK),
            _paged(plugin, api_definition.TASKS, api_definition.TASK),
            _paged(plugin, api_definition.PROBLEMS, api_definition.PROBLEM),
            extensions.ResourceExtension(
                api_definition.AGENTS.replace("_", "-"), agents, attr_map=of_agents
            ),
            extensions.ResourceExtension(
                _RESYNC, action, port, collection_methods={_RESYNC: "PUT"}
            ),
        ]
