"""Desired state as a tenant asks for it, put through the REST API in Neutron's words."""

from collections.abc import Iterable, Sequence

from lab.model import Rule, addresses_of, egress, egress_to_anywhere, ingress, new_id, random_mac
from lab.rest import Api, Body
from lab.vm import Plugged

__all__ = ["Cloud", "egress", "egress_to_anywhere", "ingress", "random_mac"]


class Cloud:
    """Networks, groups and ports of one host, whose ids are made up here."""

    def __init__(self, api: Api, host: str) -> None:
        self.api = api
        self.host = host

    def network(self, network_type: str = "local", **fields: object) -> str:
        identity = new_id()
        self.api.put("networks", identity, {"network_type": network_type, **fields})
        return identity

    def group(self, name: str, rules: Iterable[Rule], identity: str | None = None) -> str:
        """Create a group, or replace the rules of group ``identity``."""
        identity = identity or new_id()
        body = {"name": name, "security_group_rules": list(rules)}
        self.api.put("security-groups", identity, body)
        return identity

    def port(self, vm: Plugged, network: str, groups: Sequence[str] = (), **fields: object) -> Body:
        addresses = [{"ip_address": address} for address in addresses_of(vm)]
        return self.api.put(
            "ports",
            vm.port_id,
            {
                "network_id": network,
                "mac_address": vm.mac,
                "fixed_ips": addresses,
                "security_groups": list(groups),
                "binding:host_id": self.host,
                **fields,
            },
        )
