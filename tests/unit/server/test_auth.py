"""Who may use the API."""

import falcon
import falcon.testing
import pytest
from oslo_config import cfg

from agent_flows import conf as options
from agent_flows.server import policies
from agent_flows.server.standalone import auth, tokens
from lab.server_parts import configuration


def bound_to(host: str, strategy: str = "noauth") -> cfg.ConfigOpts:
    conf = configuration("sqlite://")
    conf.set_override("bind_host", host, options.API)
    conf.set_override("auth_strategy", strategy, options.API)
    return conf


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_token(host: str) -> None:
    auth.check_bind(bound_to(host))


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "10.0.0.1", "2001:db8::1", "no-such-host.invalid"]
)
def test_elsewhere_it_refuses_to_bind_without_authentication(host: str) -> None:
    with pytest.raises(auth.InsecureBind, match="auth_strategy = keystone"):
        auth.check_bind(bound_to(host))
    auth.check_bind(bound_to(host, "keystone"))


class Resource:
    def policy(self, method: str) -> str:
        return "read" if method == "GET" else "write"

    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        response.status = falcon.HTTP_200

    on_put = on_get


class Open(Resource):
    def policy(self, method: str) -> str:
        return "health"


@pytest.fixture
def guarded() -> falcon.testing.TestClient:
    """An API behind the guard; the headers are those keystonemiddleware sets."""
    app = falcon.App(middleware=[auth.Guard(policies.enforcer(bound_to("::", "keystone")))])
    app.add_route("/", Resource())
    app.add_route("/healthz", Open())
    return falcon.testing.TestClient(app)


@pytest.mark.parametrize(
    ("roles", "scope", "reads", "writes"),
    [
        ("admin", {"X-Project-Id": "p"}, 200, 200),
        ("reader", {"OpenStack-System-Scope": "all"}, 200, 403),
        ("member,reader", {"X-Project-Id": "p"}, 403, 403),
        ("other", {"OpenStack-System-Scope": "all"}, 403, 403),
    ],
)
def test_admin_may_everything_and_a_reader_of_the_system_may_read(
    guarded: falcon.testing.TestClient,
    roles: str,
    scope: dict[str, str],
    reads: int,
    writes: int,
) -> None:
    headers = {"X-Identity-Status": "Confirmed", "X-Roles": roles, "X-User-Id": "u", **scope}
    assert guarded.simulate_get("/", headers=headers).status_code == reads
    assert guarded.simulate_put("/", headers=headers).status_code == writes


@pytest.mark.parametrize("status", [None, "Invalid", "confirmed"])
def test_only_health_is_open_without_a_confirmed_token(
    guarded: falcon.testing.TestClient, status: str | None
) -> None:
    headers = {"X-Roles": "admin", **({"X-Identity-Status": status} if status else {})}
    assert guarded.simulate_get("/", headers=headers).status_code == 401
    assert guarded.simulate_get("/healthz", headers=headers).status_code == 200


def test_keystone_without_a_keystone_is_refused_at_start() -> None:
    with pytest.raises(tokens.NoKeystone, match="needs auth_type"):
        tokens.checked(falcon.App(), bound_to("::", "keystone"))
