"""Tokens of keystone, checked by keystonemiddleware. Imported only if used: it takes 10 MiB."""

from keystoneauth1 import exceptions
from keystonemiddleware import auth_token
from oslo_config import cfg
from oslo_log import log
from webob import Request, exc

from agent_flows.server.standalone.auth import KEYSTONE_AWAY, Misconfigured, Wsgi

LOG = log.getLogger(__name__)


class NoKeystone(Misconfigured):
    """Tokens are to be checked, but keystone is not configured."""


class _Tokens(auth_token.AuthProtocol):  # type: ignore[misc]
    """Every request goes on to :class:`agent_flows.server.standalone.auth.Guard`, which answers in
    this API's words and knows what needs no token.

    keystonemiddleware's own option for that, ``delay_auth_decision``, makes no difference between
    a token that is not valid and a keystone that does not answer.
    """

    def process_request(self, request: Request) -> None:
        try:
            super().process_request(request)
        except exc.HTTPUnauthorized:
            pass
        except exc.HTTPServiceUnavailable:
            request.environ[KEYSTONE_AWAY] = True
        except exceptions.ClientException as unexpected:
            LOG.error("Tokens cannot be checked: %s", unexpected)
            request.environ[KEYSTONE_AWAY] = True


def checked(app: Wsgi, conf: cfg.ConfigOpts) -> Wsgi:
    """``app`` behind keystonemiddleware, section ``[keystone_authtoken]``.

    It names the caller in headers that no client can set. Raises :class:`NoKeystone` if the
    section lacks what every check needs.
    """
    try:
        made: Wsgi = _Tokens(app, {"oslo_config_config": conf})
    except exceptions.ClientException as unusable:
        raise NoKeystone(f"[keystone_authtoken]: {unusable}") from None
    section = conf.keystone_authtoken
    for name in ("auth_type", "www_authenticate_uri"):
        if not section[name]:
            raise NoKeystone(f"auth_strategy = keystone needs {name} in [keystone_authtoken]")
    return made
