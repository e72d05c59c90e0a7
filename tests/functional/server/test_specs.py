"""``GET /ports/{id}/specs``: what the port's agent gets."""

from collections.abc import Callable

from agent_flows.rpc import codec
from lab.model import new_id
from lab.server_parts import FakeAgent, Server


def test_it_is_what_the_agent_gets_of_the_port(
    server: Server, agent: FakeAgent, make_port: Callable[..., str]
) -> None:
    addresses = new_id()
    server.put("address-groups", addresses, addresses=["10.7.0.0/24"])
    refers = new_id()
    rules = [{"direction": "egress", "remote_address_group_id": addresses}]
    server.put("security-groups", refers, security_group_rules=rules)
    make_port()
    group = server.show("ports", make_port())["security_groups"][0]
    port = make_port(security_groups=[group, refers])
    answer = server.rest.simulate_get(f"/ports/{port}/specs")
    state = codec.state_from_wire(answer.json["specs"])
    assert state == agent.specs(port)
    assert state.ports.keys() == {port}
    assert state.security_groups.keys() == {group, refers}
    assert len(state.security_groups[group].members) == 3
    assert state.address_groups.keys() == {addresses}


def test_a_port_that_does_not_exist_or_is_bound_to_no_host_has_none(
    server: Server, make_port: Callable[..., str]
) -> None:
    assert server.rest.simulate_get(f"/ports/{new_id()}/specs").status_code == 404
    unbound = make_port(**{"binding:host_id": None})
    answer = server.rest.simulate_get(f"/ports/{unbound}/specs")
    assert answer.status_code == 409
    assert answer.json["error"]["field"] == "binding:host_id"


def test_it_has_no_parameters(server: Server, make_port: Callable[..., str]) -> None:
    answer = server.rest.simulate_get(f"/ports/{make_port()}/specs", params={"fields": "id"})
    assert answer.status_code == 400
