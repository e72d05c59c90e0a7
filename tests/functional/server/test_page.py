"""The status page on every database: each page, with what only a statement can get wrong."""

import html
import re
from collections.abc import Callable

from agent_flows.report import FlowName
from lab.server_parts import FakeAgent, Server


def shown(server: Server, path: str) -> str:
    answer = server.rest.simulate_get(path)
    assert answer.status_code == 200, answer.text
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", answer.text)).split())


def ids(server: Server, path: str) -> set[str]:
    """Of the ports that the page lists."""
    text = server.rest.simulate_get(path).text
    return set(re.findall(r'<th scope="row"><a href="/page/ports/([0-9a-f-]{36})"', text))


def test_every_page_shows_what_there_is(
    server: Server, agent: FakeAgent, make_port: Callable[..., str]
) -> None:
    works, failed, gone = (make_port(name=name) for name in ("works", "failed", "gone"))
    agent.wire(works)
    agent.send(agent.report(failed, fails="bind-vlan"))
    agent.send(agent.report(gone, FlowName.UNWIRE))
    overview = shown(server, "/")
    assert "1 of 3 ports is out of sync" in overview
    for state in ("OUT_OF_SYNC", "ABSENT", "IN_SYNC"):
        assert f"1 {state}" in overview
    assert "the switch refused a flow" in overview
    assert ids(server, "/page/ports") == {works, failed, gone}
    assert ids(server, "/page/ports?sync_state=NOT_IN_SYNC") == {failed, gone}
    assert ids(server, "/page/ports?sync_state=IN_SYNC") == {works}
    assert ids(server, "/page/ports?host=host-a&name=gone") == {gone}
    port = shown(server, f"/page/ports/{failed}")
    assert "bind-vlan failed: SwitchError" in port
    assert "OFPFMFC_TABLE_FULL" in port
    assert "host-a alive" in shown(server, "/page/hosts")
    host = shown(server, "/page/hosts/host-a")
    for expected in ("1 OUT_OF_SYNC", "Last failures", "Slowest of the last"):
        assert expected in host


def test_ports_of_a_group_that_changed_and_then_failed_are_counted_and_found(
    server: Server, agent: FakeAgent, group: str, make_port: Callable[..., str]
) -> None:
    ports, other = {make_port(), make_port()}, make_port(security_groups=[])
    agent.wire(*ports, other)
    assert "All 3 ports are in sync" in shown(server, "/")
    server.put("security-groups", group, security_group_rules=[])
    assert "No port is out of sync; 2 of 3 are not in sync" in shown(server, "/")
    assert ids(server, "/page/ports?sync_state=SYNCING") == ports
    agent.send(agent.report_of_group(group, fails="apply-security-groups"))
    assert "2 of 3 ports are out of sync" in shown(server, "/")
    assert ids(server, "/page/ports?sync_state=OUT_OF_SYNC") == ports
    assert ids(server, "/page/ports?sync_state=SYNCING") == set()
    assert ids(server, "/page/ports?sync_state=IN_SYNC") == {other}
    assert "2 OUT_OF_SYNC" in shown(server, "/page/hosts/host-a")
    for port in ports:
        assert "apply-security-groups failed" in shown(server, f"/page/ports/{port}")
