"""Agent and server with TLS on every connection, and files that do not fit."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.certificates import Authority
from lab.process import run, wait_until
from lab.product import Site
from lab.rabbit import Rabbit
from lab.switch import Switch
from lab.tenant import Tenant

HOST = "compute-tls"
SECRET = "keep-this-out-of-the-logs"  # noqa: S105  of a user that this test makes


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def switch(authority: Authority) -> Iterator[Switch]:
    with Switch("tls", authority=authority) as running:
        running.add_bridge("br-phys", fail_mode="standalone")
        yield running


@pytest.fixture(scope="module")
def rabbit(switch: Switch, authority: Authority) -> Iterator[Rabbit]:
    with Rabbit(switch.namespace, authority=authority) as running:
        running.ctl("add_user", "flows", SECRET)
        running.ctl("set_permissions", "flows", ".*", ".*", ".*")
        yield running


def site_of(switch: Switch, rabbit: Rabbit, authority: Authority, trusted: Path) -> Site:
    key, certificate = authority.issue("agent")
    files = {"key_file": key, "cert_file": certificate}
    ovsdb = {f"ovsdb_ssl_{name}": file for name, file in files.items()}
    return Site(
        switch,
        HOST,
        transport_url=f"rabbit://flows:{SECRET}@{rabbit.address}:{rabbit.port}/",
        bridge_mappings={"physnet1": "br-phys"},
        options={
            "agent_flows": {
                "ovsdb_connection": switch.tls_database,
                **ovsdb,
                "ovsdb_ssl_ca_cert_file": trusted,
                "heartbeat_interval": 1,
                "retry_initial": 0.2,
            },
            "oslo_messaging_rabbit": {
                "ssl": True,
                "ssl_ca_file": authority.ca,
                **{f"ssl_{name}": file for name, file in files.items()},
            },
        },
    )


def logs(site: Site) -> str:
    return "".join(log.read_text() for log in site.directory.glob("*.log"))


def test_a_port_becomes_active_over_tls_and_no_log_has_a_secret(
    switch: Switch, rabbit: Rabbit, authority: Authority
) -> None:
    with site_of(switch, rabbit, authority, authority.ca) as site:
        site.start_server()
        site.start_agent()
        tenant = Tenant(site, 150)
        one, other = tenant.boot("one"), tenant.boot("other")
        tenant.plug(one, other)
        tenant.active(one, other)
        wait_until(lambda: one.ping(other.ip), 20, "the ports let packets in")
        connections = switch.namespace.argv(["ss", "-Htn", "state", "established"])
        assert switch.tls_database.rpartition(":")[2] in run(connections)
        tenant.leave()
        site.agent.stop()
        site.server.stop()
        assert SECRET not in logs(site)


def test_an_ovsdb_of_another_authority_is_a_trouble_that_names_the_connection(
    switch: Switch, rabbit: Rabbit, authority: Authority, tmp_path: Path
) -> None:
    with site_of(switch, rabbit, authority, Authority(tmp_path, "other").ca) as site:
        site.start_server()
        site.agent.start()

        def trouble() -> str:
            agents = site.api.find("agents", host=HOST)
            return str(agents[0]["state"]["troubles"].get("ovsdb", "")) if agents else ""

        wait_until(trouble, 30, "the agent reports a trouble")
        assert switch.tls_database in trouble()


def test_a_file_that_is_missing_ends_the_agent_with_one_line(
    switch: Switch, rabbit: Rabbit, authority: Authority, tmp_path: Path
) -> None:
    with site_of(switch, rabbit, authority, tmp_path / "none.pem") as site:
        site.agent.start()
        wait_until(lambda: not site.agent.running, 30, "it ends")
        assert "ovsdb_ssl_ca_cert_file cannot be read: No such file" in logs(site)
