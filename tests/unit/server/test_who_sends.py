"""A request is checked for its content type, origin and host before it changes anything."""

import re

import falcon.testing
import pytest

from agent_flows.server.standalone import auth
from agent_flows.server.standalone.auth import Wsgi
from lab.model import new_id
from lab.server_parts import Server, configuration, running

ID = new_id()
JSON = "application/json"


def error(answer: falcon.testing.Result) -> tuple[int, str]:
    return answer.status_code, answer.json["error"]["message"]


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain; application/json",
        "application/jsonp",
        "",
    ],
)
@pytest.mark.parametrize(
    ("method", "path"), [("PUT", f"/networks/{ID}"), ("POST", f"/ports/{ID}/resync")]
)
def test_body_of_another_content_type_is_refused(
    server: Server, method: str, path: str, kind: str
) -> None:
    body = '{"network": {"network_type": "local"}}'
    answer = server.rest.simulate_request(method, path, body=body, headers={"Content-Type": kind})
    status, message = error(answer)
    assert status == 415
    assert "Content-Type must be application/json" in message
    assert server.find("networks") == []


@pytest.mark.parametrize(
    "kind", [JSON, "application/json; charset=utf-8", "Application/JSON", None]
)
def test_json_body_is_accepted(server: Server, kind: str | None) -> None:
    answer = server.rest.simulate_put(
        f"/networks/{ID}",
        body='{"network": {"network_type": "local"}}',
        headers={} if kind is None else {"Content-Type": kind},
    )
    assert answer.status_code == 201


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:8080"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
def test_page_of_another_site_changes_nothing_without_tokens(
    server: Server, network: str, headers: dict[str, str]
) -> None:
    for method, path in (("POST", f"/ports/{ID}/resync"), ("DELETE", f"/networks/{network}")):
        answer = server.rest.simulate_request(
            method, path, host="127.0.0.1", port=9797, headers=headers
        )
        status, message = error(answer)
        assert (status, "another site" in message) == (403, True)
    assert server.show("networks", network)


def test_own_page_and_other_programs_are_accepted(server: Server, network: str) -> None:
    own = {"Origin": "http://127.0.0.1:9797", "Sec-Fetch-Site": "same-origin"}
    for headers in (own, {}):
        answer = server.rest.simulate_post(
            f"/ports/{ID}/resync", host="127.0.0.1", port=9797, headers=headers
        )
        assert answer.status_code == 404


@pytest.fixture
def loopback() -> Wsgi:
    conf = configuration("sqlite://")
    return auth.with_known_hosts(falcon.App(), conf)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:9797", "localhost", "LOCALHOST:9797", "localhost.", "[::1]:9797", "127.8.8.8", ""],
)
def test_an_api_without_tokens_answers_under_the_names_of_loopback(
    loopback: Wsgi, host: str
) -> None:
    answer = falcon.testing.TestClient(loopback).simulate_get("/", headers={"Host": host})
    assert answer.status_code == 404


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:9797", "10.0.0.1", "127.0.0.1.evil"]
)
def test_an_api_without_tokens_refuses_any_other_name(loopback: Wsgi, host: str) -> None:
    answer = falcon.testing.TestClient(loopback).simulate_get("/", headers={"Host": host})
    status, message = error(answer)
    assert status == 421
    assert host.partition(":")[0] in message


def test_with_tokens_every_name_may_be_used() -> None:
    conf = configuration("sqlite://")
    conf.set_override("auth_strategy", "keystone", "agent_flows_api")
    app = falcon.App()
    assert auth.with_known_hosts(app, conf) is app


def test_invented_methods_and_paths_add_no_series(url: str) -> None:
    with running(url) as server:
        for number in range(20):
            server.rest.simulate_request(f"INVENTED{number}", "/ports")
            server.rest.simulate_request("GET", f"/invented/{number}")
        text = server.metrics.text().decode()
    series = re.findall(r"agent_flows_request_seconds_count\{(.*)\}", text)
    assert len(series) <= 3
    assert any('method="other"' in labels for labels in series)
    assert "INVENTED" not in text
    assert "invented" not in text
