"""Desired state as a tenant asks for it, put through the REST API in Neutron's words."""

import uuid
from collections.abc import Iterable, Sequence

from lab.rest import Api, Body
from lab.vm import Plugged

Rule = Body


def ingress(**fields: object) -> Rule:
    """An IPv4 rule for what reaches the VM; ``port`` stands for both ends of the range."""
    return _rule("ingress", fields)


def egress(**fields: object) -> Rule:
    return _rule("egress", fields)


def egress_to_anywhere() -> list[Rule]:
    """What Neutron puts into every new group."""
    return [egress(), egress(ethertype="IPv6")]


def _rule(direction: str, fields: Body) -> Rule:
    rule = {"direction": direction, "ethertype": "IPv4", **fields}
    if port := rule.pop("port", None):
        rule["port_range_min"] = rule["port_range_max"] = port
    return rule


def random_mac() -> str:
    tail = uuid.uuid4().bytes[:3]
    return "fa:16:3e:" + ":".join(f"{byte:02x}" for byte in tail)


class Cloud:
    """Networks, groups and ports of one host, whose ids are made up here."""

    def __init__(self, api: Api, host: str) -> None:
        self.api = api
        self.host = host

    def network(self, network_type: str = "local", **fields: object) -> str:
        identity = str(uuid.uuid4())
        self.api.put("networks", identity, {"network_type": network_type, **fields})
        return identity

    def group(self, name: str, rules: Iterable[Rule], identity: str | None = None) -> str:
        """Create a group, or replace the rules of group ``identity``."""
        identity = identity or str(uuid.uuid4())
        body = {"name": name, "security_group_rules": list(rules)}
        self.api.put("security-groups", identity, body)
        return identity

    def port(self, vm: Plugged, network: str, groups: Sequence[str] = (), **fields: object) -> Body:
        addresses = [{"ip_address": address.partition("/")[0]} for address in vm.addresses]
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
