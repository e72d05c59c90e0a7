"""Who may use the API: everybody on loopback, or those keystone vouches for."""

import ipaddress
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import falcon
from oslo_config import cfg
from oslo_context import context
from oslo_policy import policy

from agent_flows import conf as options

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Misconfigured(Exception):
    """The API cannot be guarded as it is configured."""


class InsecureBind(Misconfigured):
    """The API would be open to the network without authentication."""


class NoKeystone(Misconfigured):
    """Tokens are to be checked, but it is not said where."""


def check_bind(conf: cfg.ConfigOpts) -> None:
    """Raise :class:`InsecureBind` if everybody on the network would be admin."""
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
        speaker = (
            context.RequestContext.from_environ(request.env)
            if confirmed
            else context.RequestContext()
        )
        if self._enforcer.enforce(rule, {}, speaker.to_policy_values()):
            return
        if not confirmed:
            raise falcon.HTTPUnauthorized(
                title="Unauthorized", description="a valid token is needed, in X-Auth-Token"
            )
        raise falcon.HTTPForbidden(title="Forbidden", description=f"policy does not allow {rule}")


def with_tokens(app: Wsgi, conf: cfg.ConfigOpts) -> Wsgi:
    """``app`` behind keystonemiddleware, section ``[keystone_authtoken]``.

    It says who speaks in headers that nobody else can set; whether they may is
    for :class:`Guard`. Raises :class:`NoKeystone` if the section lacks what
    every check needs.
    """
    # 10 MiB that only those take who use it.
    from keystoneauth1 import exceptions
    from keystonemiddleware import auth_token

    settings = {"oslo_config_config": conf, "delay_auth_decision": True}
    try:
        checked: Wsgi = auth_token.AuthProtocol(app, settings)
    except exceptions.ClientException as exc:
        raise NoKeystone(f"[keystone_authtoken]: {exc}") from None
    section = conf.keystone_authtoken
    for name in ("auth_type", "www_authenticate_uri"):
        if not section[name]:
            raise NoKeystone(f"auth_strategy = keystone needs {name} in [keystone_authtoken]")
    return checked
