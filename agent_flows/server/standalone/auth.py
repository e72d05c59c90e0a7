"""Who may use the API: any caller on loopback, or callers with a token of keystone."""

import ipaddress
import json
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

import falcon
from oslo_config import cfg
from oslo_context import context
from oslo_policy import policy

from agent_flows import conf as options

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
KEYSTONE_AWAY = "agent_flows.keystone_away"
"""In the environment of a request whose token could not be checked."""


class Misconfigured(Exception):
    """The API cannot be guarded as it is configured."""


class InsecureBind(Misconfigured):
    """The API would be open to the network without authentication."""


def check_bind(conf: cfg.ConfigOpts) -> None:
    """Raise :class:`InsecureBind` if any caller on the network would be admin."""
    api = conf[options.API]
    if api.auth_strategy == "keystone" or _is_loopback(api.bind_host):
        return
    raise InsecureBind(
        f"bind_host = {api.bind_host} needs auth_strategy = keystone: without authentication "
        "the API listens on loopback only"
    )


def _is_loopback(host: str) -> bool:
    try:
        addresses = {info[4][0] for info in socket.getaddrinfo(host, None)}
    except socket.gaierror:
        return False
    return bool(addresses) and all(
        ipaddress.ip_address(str(address).partition("%")[0]).is_loopback for address in addresses
    )


class OwnPages:
    """Falcon middleware for an API without tokens: pages of other sites may change nothing.

    A browser names the page that sends a request (Fetch Metadata, Origin); other
    clients send neither header and are let through.
    """

    def process_request(self, request: falcon.Request, response: falcon.Response) -> None:
        if request.method in ("GET", "HEAD", "OPTIONS"):
            return
        origin = request.get_header("Origin")
        site = request.get_header("Sec-Fetch-Site")
        own = origin is None or urlsplit(origin).netloc.lower() == request.netloc.lower()
        if not own or site not in (None, "same-origin", "none"):
            raise falcon.HTTPForbidden(
                title="Forbidden",
                description=f"a page of another site may change nothing here (Origin {origin!r})",
            )


def with_known_hosts(app: Wsgi, conf: cfg.ConfigOpts) -> Wsgi:
    """``app`` for requests whose Host header is an address or name of this machine's loopback.

    Without tokens any caller on loopback is admin. A page in a browser on this
    machine is one if its own name resolves to 127.0.0.1 (DNS rebinding). With
    tokens every name may be used.
    """
    api = conf[options.API]
    if api.auth_strategy == "keystone":
        return app

    def checked(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        name = _host_name(environ.get("HTTP_HOST", ""))
        if name in ("", "localhost", api.bind_host.lower()) or _is_loopback_address(name):
            return app(environ, start_response)
        message = (
            f"Host {name!r} is not this API's: use localhost, a loopback address or {api.bind_host}"
        )
        error = {"type": "MisdirectedRequest", "message": message, "field": None}
        body = json.dumps({"error": error}).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        start_response("421 Misdirected Request", headers)
        return [body]

    return checked


def _host_name(header: str) -> str:
    """The name in a Host header, without its port and without the brackets of IPv6."""
    name = header.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0].removesuffix(".")


def _is_loopback_address(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class _Guarded(Protocol):
    def policy(self, method: str) -> str: ...


class Guard:
    """Falcon middleware: every resource names the rule of each of its methods."""

    def __init__(self, enforcer: policy.Enforcer) -> None:
        self._enforcer = enforcer

    def process_resource(
        self,
        request: falcon.Request,
        response: falcon.Response,
        resource: _Guarded,
        params: Mapping[str, Any],
    ) -> None:
        rule = f"agent_flows:{resource.policy(request.method)}"
        confirmed = request.env.get("HTTP_X_IDENTITY_STATUS") == "Confirmed"
        caller = (
            context.RequestContext.from_environ(request.env)
            if confirmed
            else context.RequestContext()
        )
        if self._enforcer.enforce(rule, {}, caller.to_policy_values()):
            return
        if KEYSTONE_AWAY in request.env:
            raise falcon.HTTPServiceUnavailable(
                title="Unavailable", description="Keystone does not answer; try again"
            )
        if not confirmed:
            raise falcon.HTTPUnauthorized(
                title="Unauthorized", description="a valid token is needed, in X-Auth-Token"
            )
        raise falcon.HTTPForbidden(title="Forbidden", description=f"policy does not allow {rule}")
