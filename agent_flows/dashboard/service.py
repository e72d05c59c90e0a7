"""Connects to a cloud, and serves its pages until it is interrupted."""

# falcon.App is generic since falcon 4.2.
from __future__ import annotations

import argparse
import datetime
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import falcon
import waitress
from keystoneauth1 import exceptions as keystone
from oslo_log import log

from agent_flows.cli.failure import CommandFailed, ExitCode
from agent_flows.cli.osc import NeutronClient
from agent_flows.dashboard.neutron_source import NeutronSource
from agent_flows.page import pages, web
from agent_flows.page.source import Source
from agent_flows.validation import Invalid

LOG = log.getLogger(__name__)

EXTENSION = "agent-flows"
"""The alias of the extension of Neutron's API."""

# Neutron answers several requests for one page; more at a time would only load it.
_THREADS = 4
_KEY = "key"


def connect(options: argparse.Namespace, cloud: str | None, region: str | None) -> NeutronClient:
    """The client of the cloud in clouds.yaml, or else of ``options`` and the OS_* variables.

    Raises :class:`CommandFailed` if there is none, or if Neutron does not answer or lacks our
    extension.
    """
    try:
        from openstack import config
        from openstack import exceptions as sdk
        from openstack.connection import Connection
    except ImportError:
        message = "openstacksdk is missing; install agent_flows[dashboard]"
        raise CommandFailed(message) from None
    # A cloud of the file is complete; the variables may be those of another one.
    given = {} if cloud else {n: v for n, v in vars(options).items() if n.startswith("os_")}
    chosen = {**given, "os_cacert": options.os_cacert, "os_region_name": region}
    if options.insecure:
        chosen["insecure"] = True
    try:
        loader = config.OpenStackConfig(app_name="agent-flows")
        found = loader.get_one(cloud=cloud, argparse=argparse.Namespace(**chosen))
        client = NeutronClient(Connection(config=found).network)
    except (sdk.SDKException, keystone.ClientException) as exc:
        raise CommandFailed(
            f"Cannot connect to a cloud: {exc} (name one of clouds.yaml with --os-cloud, or set "
            "the OS_* variables)"
        ) from None
    _check(client)
    return client


def _check(client: NeutronClient) -> None:
    try:
        client.show("extensions", EXTENSION)
    except CommandFailed as exc:
        if exc.exit_code is not ExitCode.NOT_FOUND:
            raise
        raise CommandFailed(
            f"This Neutron has no API extension {EXTENSION}: its server runs without agent_flows, "
            "or service_plugins in its neutron.conf lacks agent_flows."
        ) from None


class Service:
    """Listens from its entry on; raises :class:`CommandFailed` if it cannot."""

    def __init__(self, client: NeutronClient, host: str, port: int) -> None:
        self._key = secrets.token_urlsafe(24)
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._socket = socket.create_server((host, port), family=family)
        except (OSError, OverflowError) as exc:
            raise CommandFailed(f"Cannot listen on {host}, port {port}: {exc}") from None
        self._port = self._socket.getsockname()[1]
        self._host = f"[{host}]" if ":" in host else host
        app = application(client, Visitors(self._key, f"agent_flows_{self._port}"))
        self._server = waitress.create_server(
            app,
            sockets=[self._socket],
            threads=_THREADS,
            ident=None,
            clear_untrusted_proxy_headers=True,
        )

    @property
    def address(self) -> str:
        return f"http://{self._host}:{self._port}/?{_KEY}={self._key}"

    def run(self) -> None:
        """Answer requests until Ctrl-C."""
        self._server.run()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()


class Visitors:
    """Falcon middleware: lets a browser in that was given the address with the key.

    Whoever can connect, such as another user of this machine, would have the rights of the user
    whose token this process has. The browser keeps the key in a cookie, so it is in no link.
    """

    def __init__(self, key: str, cookie: str) -> None:
        self._key, self._cookie = key, cookie

    def process_resource(
        self, request: falcon.Request, response: falcon.Response, resource: object, params: Any
    ) -> None:
        if isinstance(resource, web.File):
            return
        if self._is_key(request.get_param(_KEY)):
            # Without max_age it is gone with the browser; plain HTTP has no secure cookies.
            response.set_cookie(
                self._cookie, self._key, path="/", secure=False, http_only=True, same_site="Lax"
            )
            raise falcon.HTTPSeeOther(request.path)
        if not any(map(self._is_key, request.get_cookie_values(self._cookie) or ())):
            raise falcon.HTTPForbidden(
                title="Forbidden",
                description="open the address with a key that agent-flows dashboard has printed",
            )

    def _is_key(self, text: str | None) -> bool:
        return text is not None and secrets.compare_digest(text.encode(), self._key.encode())


def application(client: NeutronClient, visitors: Visitors) -> falcon.App[Any, Any]:
    """The pages of the cloud, for browsers that ``visitors`` lets in."""

    @contextmanager
    def source() -> Iterator[Source]:
        yield NeutronSource(client)

    app = falcon.App(middleware=[visitors])
    app.req_options.strip_url_path_trailing_slash = True
    app.req_options.auto_parse_qs_csv = False
    for path, resource in web.routes(web.Site(source, _now)).items():
        app.add_route(path, resource)
    app.set_error_serializer(_serialize)
    app.add_error_handler(Exception, _failed)
    app.add_error_handler(falcon.HTTPError, _refused)
    for error, status, title in (
        (pages.Missing, falcon.HTTP_404, "NotFound"),
        (Invalid, falcon.HTTP_400, "Invalid"),
        (CommandFailed, falcon.HTTP_502, "Neutron does not answer as it should"),
    ):
        app.add_error_handler(error, _says(status, title))
    return app


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _says(status: str, title: str) -> Any:
    """A handler that answers with the message of the exception."""

    def handle(request: Any, response: falcon.Response, exc: Exception, params: Any) -> None:
        response.status = status
        web.show(response, pages.problem(title, str(exc), _now()))

    return handle


def _failed(
    request: falcon.Request, response: falcon.Response, exc: Exception, params: Any
) -> None:
    LOG.exception("%r failed", request.path)
    response.status = falcon.HTTP_500
    web.show(response, pages.problem("Error", "the dashboard failed; see its output", _now()))


def _refused(
    request: falcon.Request, response: falcon.Response, exc: falcon.HTTPError, params: Any
) -> None:
    response.status = exc.status
    _serialize(request, response, exc)


def _serialize(request: falcon.Request, response: falcon.Response, exc: falcon.HTTPError) -> None:
    title = (exc.title or "Error").removeprefix(str(exc.status)[:3]).strip()
    web.show(response, pages.problem(title, exc.description or title, _now()))
