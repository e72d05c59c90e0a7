"""Neutron's API as its tenants and administrators use it, without keystone.

The caller is an administrator unless ``headers`` name a project (lab.neutron.wsgi).
"""

import http.client
import uuid
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from lab.namespace import Namespace
from lab.neutron.configuration import API_PORT
from lab.process import wait_until
from lab.rest import Api, Body, Refused

PROJECT = "8b4c6a1e0f5d4d6c9a7b2e3f4a5b6c7d"
_AT_ONCE = 20  # a port takes the API up to a quarter of a second, on a busy machine several
_POLL = 0.1  # the API is not free: each question costs it some 10 ms of a core


class Client:
    """One kept-alive connection; for one thread at a time. Raises :class:`Refused`."""

    def __init__(self, namespace: Namespace, headers: Mapping[str, str] | None = None) -> None:
        self._rest = Api(namespace, API_PORT, headers)

    def close(self) -> None:
        self._rest.close()

    def answers(self) -> bool:
        """Whether the API is there and has its database."""
        try:
            self.find("networks", limit=1)
        except (OSError, http.client.HTTPException, Refused):
            self.close()
            return False
        return True

    # Every collection alike. ``kind`` is the plural with underscores: security_group_rules.

    def create(self, kind: str, **fields: object) -> Body:
        return self._one("POST", kind, "", {"project_id": PROJECT, **fields})

    def create_all(self, kind: str, bodies: Iterable[Mapping[str, object]]) -> list[Body]:
        """All of them, or none, in one request."""
        named = [{"project_id": PROJECT, **body} for body in bodies]
        return list(self.request("POST", _path(kind), {kind: named})[kind])

    def show(self, kind: str, identity: str) -> Body:
        return self._one("GET", kind, f"/{identity}", None)

    def update(self, kind: str, identity: str, **fields: object) -> Body:
        return self._one("PUT", kind, f"/{identity}", fields)

    def delete(self, kind: str, identity: str) -> None:
        self.request("DELETE", f"{_path(kind)}/{identity}")

    def find(self, kind: str, **filters: object) -> list[Body]:
        """All of them: without a ``limit`` page after page."""
        return self._rest.pages(f"/v2.0{_path(kind)}", kind, filters)

    def request(self, method: str, path: str, body: object = None) -> Any:
        """Anything else; ``path`` is below ``/v2.0``."""
        return self._rest.request(method, f"/v2.0{path}", body)

    def _one(self, method: str, kind: str, rest: str, fields: Body | None) -> Body:
        singular = kind.removesuffix("es") if kind.endswith("sses") else kind.removesuffix("s")
        body = None if fields is None else {singular: fields}
        return dict(self.request(method, f"{_path(kind)}{rest}", body)[singular])

    # What tenants do most.

    def network(self, cidr: str, **fields: object) -> Body:
        """A network with one subnet, ``cidr``, without DHCP; the network."""
        network = self.create("networks", name=cidr, **fields)
        version = 6 if ":" in cidr else 4
        self.create(
            "subnets", network_id=network["id"], cidr=cidr, ip_version=version, enable_dhcp=False
        )
        return network

    def group(self, name: str, rules: Iterable[Mapping[str, object]]) -> str:
        """A security group with ``rules`` beside Neutron's own (all egress); its id."""
        identity = str(self.create("security_groups", name=name)["id"])
        if bodies := [{**rule, "security_group_id": identity} for rule in rules]:
            self.create_all("security_group_rules", bodies)
        return identity

    def ports(
        self, count: int, network: str, groups: Collection[str], host: str, **fields: object
    ) -> list[Body]:
        """``count`` ports alike, bound to ``host``, as Nova asks for them."""
        body = {
            "network_id": network,
            "security_groups": list(groups),
            "device_owner": "compute:nova",
            "binding:host_id": host,
            **fields,
        }
        # Neutron notifies Nova only of machines whose id is a UUID.
        bodies = [{**body, "device_id": str(uuid.uuid4())} for _ in range(count)]
        return [
            port
            for first in range(0, count, _AT_ONCE)
            for port in self.create_all("ports", bodies[first : first + _AT_ONCE])
        ]

    def port(self, identity: str) -> Body:
        return self.show("ports", identity)

    def tasks(self, port_id: str, state: str | None = None) -> list[Body]:
        """The port's tasks, oldest first; only those in ``state`` if one is given."""
        filters = {"task_state": state} if state else {}
        found = self.find("tasks", resource_id=port_id, **filters)
        return sorted(found, key=lambda task: (task["started_at"] or "", task["order"]))

    def wait_port(self, identity: str, seconds: float = 30, **expected: object) -> Body:
        self.wait_fields([identity], seconds, **expected)
        return self.port(identity)

    def wait_ports(self, identities: Collection[str], status: str, seconds: float = 30) -> None:
        """Until all have ``status``; TimeoutError names those that have not."""
        self.wait_fields(identities, seconds, status=status)

    def wait_fields(
        self, identities: Collection[str], seconds: float = 30, **expected: object
    ) -> None:
        """Until all have these fields; TimeoutError names those that have not."""
        wanted = set(identities)
        seen: dict[str, Body] = {}

        def all_there() -> bool:
            found = self.find("ports", fields=["id", *expected])
            seen.update({port.pop("id"): port for port in found if port["id"] in wanted})
            return all(seen.get(identity) == expected for identity in wanted)

        try:
            wait_until(all_there, seconds, f"ports are {expected}", poll=_POLL)
        except TimeoutError as late:
            others = {identity: seen.get(identity) for identity in wanted}
            others = {identity: are for identity, are in others.items() if are != expected}
            raise TimeoutError(f"{late}; they are {others}") from None


def _path(kind: str) -> str:
    return f"/{kind.replace('_', '-')}"
