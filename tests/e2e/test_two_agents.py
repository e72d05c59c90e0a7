"""Two agents of one host on RabbitMQ: the first keeps its ports, and the conflict is shown."""

from lab.model import egress_to_anywhere
from lab.process import wait_until
from lab.product import Site
from lab.rabbit import Rabbit
from lab.switch import Switch
from lab.tenant import Tenant

SECONDS = 30


def test_a_second_agent_with_an_empty_bridge_takes_nothing_and_rule_changes_go_on(
    site: Site, rabbit: Rabbit, switch: Switch, tenant: Tenant
) -> None:
    one, other = tenant.boot("web1", tenant.web), tenant.boot("web2", tenant.web)
    tenant.plug(one, other)
    tenant.active(one, other)
    assert other.connect(one.ip, 80)
    quick = {"heartbeat_interval": 1, "rpc_timeout": 5, "integration_bridge": "br-other"}
    with Site(
        switch, site.host, transport_url=rabbit.url, options={"agent_flows": quick}
    ) as second:
        second.agent.start()

        def conflict() -> bool:
            (agent,) = site.api.find("agents")
            return agent["conflict"] is not None

        wait_until(conflict, SECONDS, "the conflict is shown")
        for vm in (one, other):
            port = site.api.port(vm.port_id)
            assert (port["status"], port["sync_state"]) == ("ACTIVE", "IN_SYNC")
        tenant.cloud.group("web", egress_to_anywhere(), tenant.web)
        tenant.active(one, other)
        wait_until(lambda: not other.connect(one.ip, 80), SECONDS, "the revoked rule is gone")
        wait_until(
            lambda: "is taken" in second.agent.last_words(200), SECONDS, "the second one logs it"
        )
    tenant.active(one, other)
    tasks = [task for vm in (one, other) for task in site.api.tasks(vm.port_id, "FAILED")]
    assert tasks == []
