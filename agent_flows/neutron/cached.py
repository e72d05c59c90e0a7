"""Revisions of ports and groups, as the agent's resource cache knows them."""

from collections.abc import Mapping
from typing import Any

from neutron.api.rpc.callbacks import resources

from agent_flows.neutron import revision
from agent_flows.neutron.reporting import Revisions


class CachedRevisions:
    """``cache`` is Neutron's RemoteResourceCache, to which the server pushes what changes."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def __call__(self, port: Mapping[str, Any]) -> Revisions:
        """Of the port whose dict this is, and of each of its groups; 0 and nothing for one that
        the server does not know (any more)."""
        port_id = port.get("device")
        found = self._cache.get_resource_by_id(resources.PORT, port_id) if port_id else None
        if found is None:
            return 0, {}
        groups = port.get("security_groups") or ()
        return found.revision_number, {group: self._of_group(group) for group in groups}

    def _of_group(self, group: str) -> int:
        rules = self._cache.get_resources(
            resources.SECURITYGROUPRULE, {"security_group_id": (group,)}
        )
        return revision.of_rules(rule.id for rule in rules)
