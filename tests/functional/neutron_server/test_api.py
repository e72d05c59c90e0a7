"""``/v2.0/tasks``, ``sync_state`` and ``resync``, as users and administrators see them."""

from collections.abc import Callable

import pytest

from agent_flows.report import FlowName
from tests.functional.neutron_server.stage import PROJECT, Body, Host, Neutron, Refused

MakePort = Callable[..., Body]
STRANGER = "0" * 32
COMMON = "a of or the port ports claim is has network not does"


@pytest.fixture
def failing(neutron: Neutron, ours: Host, make_port: MakePort) -> str:
    """A port of the project that was wired, and whose refresh failed."""
    port: str = make_port(ours)["id"]
    ours.plug(port)
    ours.reports(port)
    ours.reports(port, flow=FlowName.REFRESH, fails="apply-security-groups", attempt=2)
    return port


def test_a_task_is_shown_with_all_that_is_known_of_it(
    neutron: Neutron, ours: Host, failing: str
) -> None:
    (task,) = neutron.tasks(f"?resource_id={failing}&task_state=FAILED")
    shown = neutron.rest("GET", f"/tasks/{task['id']}")["task"]
    assert shown == task
    assert task.pop("started_at")
    assert task.pop("flow_id") in task.pop("id")
    assert task == {
        "resource_type": "port",
        "resource_id": failing,
        "project_id": PROJECT,
        "tenant_id": PROJECT,
        "host": ours.name,
        "flow": "refresh",
        "name": "apply-security-groups",
        "step": "security_groups",
        "order": 0,
        "task_state": "FAILED",
        "attempt": 2,
        "revision": neutron.port(failing)["revision_number"] - 1,
        "duration": 0.001,
        "error": {
            "type": "SwitchError",
            "message": "the switch refused a flow",
            "detail": "OFPFMFC_TABLE_FULL",
        },
    }


@pytest.mark.parametrize(
    ("query", "number"),
    [
        ("", 11),
        ("task_state=FAILED", 1),
        ("task_state=FAILED&task_state=PENDING", 3),
        ("flow=wire", 8),
        ("name=verify-security-groups", 2),
        ("step=l2", 5),
        (f"project_id={PROJECT}", 11),
        (f"tenant_id={STRANGER}", 0),
        ("host=host-unknown", 0),
        ("resource_type=port", 11),
    ],
)
def test_tasks_are_filtered(neutron: Neutron, failing: str, query: str, number: int) -> None:
    assert len(neutron.tasks(f"?resource_id={failing}&{query}")) == number


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("colour=red", "colour"),  # Neutron before 29 lets us check filters, in other words
        ("task_state=BROKEN", "task_state: must be one of"),
        ("sort_key=error&sort_dir=asc", "['error'] is invalid attribute for sort_keys"),
        ("limit=many", "Limit must be an integer"),
        ("limit=1&marker=nothing", "marker: there is no such item"),
        ("name=%00", "must be printable"),
    ],
)
def test_what_neutron_cannot_look_for_is_its_usual_400(
    neutron: Neutron, query: str, message: str
) -> None:
    with pytest.raises(Refused) as refused:
        neutron.tasks(f"?{query}")
    assert refused.value.status == 400
    assert message in refused.value.body["NeutronError"]["message"]


def test_pages_follow_each_other_and_go_back(neutron: Neutron, failing: str) -> None:
    every = [task["id"] for task in neutron.tasks(f"?resource_id={failing}")]
    first = neutron.rest("GET", f"/tasks?resource_id={failing}&limit=4")
    assert [task["id"] for task in first["tasks"]] == every[:4]
    links = {link["rel"]: link["href"].partition("/v2.0")[2] for link in first["tasks_links"]}
    second = neutron.rest("GET", links["next"])
    assert [task["id"] for task in second["tasks"]] == every[4:8]
    links = {link["rel"]: link["href"].partition("/v2.0")[2] for link in second["tasks_links"]}
    assert neutron.rest("GET", links["previous"])["tasks"] == first["tasks"]


@pytest.mark.parametrize("query", ["", "&limit=100000"])
def test_no_answer_has_more_tasks_than_a_page_and_its_links_lead_to_all(
    neutron: Neutron, ours: Host, active: str, query: str
) -> None:
    reports = [ours.report(active) for _ in range(150)]
    assert ours.send(*reports)["rejected"] == {}
    total = 8 * 151
    pages, path = [], f"/tasks?resource_id={active}&fields=id{query}"
    while path:
        answer = neutron.rest("GET", path)
        pages.append([task["id"] for task in answer["tasks"]])
        links = {link["rel"]: link["href"] for link in answer.get("tasks_links", ())}
        path = links.get("next", "").partition("/v2.0")[2]
    assert [len(page) for page in pages] == [1000, total - 1000]
    assert len({task for page in pages for task in page}) == total


def test_tasks_are_sorted_and_shown_in_part(neutron: Neutron, failing: str) -> None:
    query = f"?resource_id={failing}&flow=wire&sort_key=name&sort_dir=desc&fields=name"
    tasks = neutron.tasks(query)
    names = [task["name"] for task in tasks]
    assert names == sorted(names, reverse=True)
    assert set(tasks[0]) == {"name"}


def test_a_project_reads_what_failed_but_not_the_insides_of_the_host(
    neutron: Neutron, failing: str
) -> None:
    tasks = neutron.tasks("?task_state=FAILED", project=PROJECT)
    mine = next(task for task in tasks if task["resource_id"] == failing)
    assert mine["error"] == {"type": "SwitchError", "message": "the switch refused a flow"}
    assert "host" not in mine
    assert neutron.rest("GET", f"/tasks/{mine['id']}", project=PROJECT)["task"] == mine
    assert neutron.port(failing, project=PROJECT)["sync_state"] == "OUT_OF_SYNC"
    for query in ("?host=host-1", "?sort_key=host&sort_dir=asc"):
        with pytest.raises(Refused) as refused:
            neutron.tasks(query, project=PROJECT)
        assert refused.value.status == 403


def test_a_project_does_not_read_the_name_of_its_ports_host_when_that_is_silent(
    neutron: Neutron, ours: Host, active: str
) -> None:
    neutron.do("later", seconds=100)
    neutron.do("sweep")
    (task,) = neutron.tasks(f"?resource_id={active}&task_state=FAILED")
    assert task["error"]["type"] == "AgentSilent"
    assert ours.name in task["error"]["message"] + task["error"]["detail"]
    (mine,) = neutron.tasks(f"?resource_id={active}&task_state=FAILED", project=PROJECT)
    assert mine["error"] == {
        "type": "AgentSilent",
        "message": "the agent of the port's host is silent",
    }
    assert ours.name not in str(mine)


@pytest.mark.parametrize(
    ("error_type", "message"),
    [
        ("Conflict", "several ports claim ofport 7: 6b4a8f0e-0000-4000-8000-000000000001"),
        ("BridgeNotFound", "bridge br-ex of physical network rack7 does not exist"),
        ("SegmentInUse", "network 6b4a8f0e-0000-4000-8000-000000000001 already has vlan 101"),
        ("OSError", "[Errno 2] No such file or directory: '/var/lib/host-1/secret'"),
        ("InvalidSpec", "other_config of port tap1 is invalid: tag 7"),
    ],
)
def test_a_project_reads_nothing_of_the_host_in_any_error(
    neutron: Neutron, ours: Host, make_port: MakePort, error_type: str, message: str
) -> None:
    port = make_port(ours)["id"]
    raw = ours.wire_form(ours.report(port, fails="bind-vlan"))
    failed = next(task for task in raw["tasks"] if task["error"])
    failed["error"] = {"type": error_type, "message": message, "detail": message}
    assert neutron.do("report", host=ours.name, reports=[raw])["accepted"] == [raw["id"]]
    query = f"?resource_id={port}&task_state=FAILED"
    (task,) = neutron.tasks(query)
    assert task["error"]["message"] == message
    (mine,) = neutron.tasks(query, project=PROJECT)
    assert mine["error"]["type"] == error_type
    assert not set(message.split()) & set(mine["error"]["message"].split()) - set(COMMON.split())


def test_a_project_reads_which_of_its_own_rules_is_at_fault(
    neutron: Neutron, ours: Host, make_port: MakePort
) -> None:
    port = make_port(ours)["id"]
    message = "security group web, rule ingress IPv4 dccp 80: Open vSwitch matches ports of tcp"
    raw = ours.wire_form(ours.report(port, fails="bind-vlan"))
    failed = next(task for task in raw["tasks"] if task["error"])
    failed["error"] = {"type": "Unsupported", "message": message, "detail": ""}
    neutron.do("report", host=ours.name, reports=[raw])
    (mine,) = neutron.tasks(f"?resource_id={port}&task_state=FAILED", project=PROJECT)
    assert mine["error"] == {"type": "Unsupported", "message": message}


def test_a_project_sees_nothing_of_others(neutron: Neutron, failing: str) -> None:
    (task,) = neutron.tasks(f"?resource_id={failing}&task_state=FAILED")
    assert neutron.tasks(project=STRANGER) == []
    assert neutron.tasks(f"?project_id={PROJECT}", project=STRANGER) == []
    with pytest.raises(Refused) as refused:
        neutron.rest("GET", f"/tasks/{task['id']}", project=STRANGER)
    assert refused.value.status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_tasks_are_only_read(neutron: Neutron, failing: str, method: str) -> None:
    task = neutron.tasks(f"?resource_id={failing}")[0]
    path = "/tasks" if method == "POST" else f"/tasks/{task['id']}"
    with pytest.raises(Refused) as refused:
        neutron.rest(method, path, {"task": {"name": "other"}})
    assert refused.value.status in (400, 404, 405)


SYNC = ("sync_state", "sync_revision", "sync_reason")


def sync(neutron: Neutron, port: str, **who: str) -> list[object]:
    shown = neutron.port(port, **who)
    return [shown[name] for name in SYNC]


def test_one_request_answers_why_a_port_is_out_of_sync(
    neutron: Neutron, ours: Host, make_port: MakePort
) -> None:
    port = make_port(ours)["id"]
    assert sync(neutron, port) == ["SYNCING", None, None]
    ours.plug(port)
    revision = neutron.port(port)["revision_number"]
    ours.reports(port)
    assert sync(neutron, port) == ["IN_SYNC", revision, None]
    wired = neutron.port(port)["sync_since"]
    ours.reports(port, flow=FlowName.REFRESH, fails="apply-security-groups")
    reason = {"type": "SwitchError", "message": "the switch refused a flow"}
    assert sync(neutron, port) == ["OUT_OF_SYNC", revision, reason]
    failed = neutron.port(port)["sync_since"]
    assert failed > wired
    ours.reports(port, fails="bind-vlan", attempt=2)
    assert sync(neutron, port) == ["OUT_OF_SYNC", None, reason]
    assert neutron.port(port)["sync_since"] == failed


def test_a_port_of_a_host_without_the_extension_shows_nothing(
    neutron: Neutron, plain: Host, make_port: MakePort
) -> None:
    port = neutron.port(make_port(plain)["id"])
    assert [port[name] for name in (*SYNC, "sync_since")] == [None] * 4


def test_a_project_reads_why_its_port_is_out_of_sync_but_nothing_of_the_host(
    neutron: Neutron, ours: Host, active: str
) -> None:
    neutron.do("later", seconds=100)
    neutron.do("sweep")
    _, _, admins = sync(neutron, active)
    assert admins == {"type": "AgentSilent", "message": admins["message"]}
    assert "no heartbeat" in admins["message"]
    state, _, reason = sync(neutron, active, project=PROJECT)
    assert (state, reason) == (
        "UNKNOWN",
        {"type": "AgentSilent", "message": "the agent of the port's host is silent"},
    )
    query = f"/ports?id={active}&fields=sync_reason"
    for who, expected in ((PROJECT, reason), (None, admins)):
        (listed,) = neutron.rest("GET", query, project=who)["ports"]
        assert listed == {"sync_reason": expected}


def test_a_list_of_ports_reads_reasons_at_once_and_only_if_it_is_asked_for_them(
    neutron: Neutron, ours: Host, make_port: MakePort
) -> None:
    numbers = []
    query = f"/ports?binding:host_id={ours.name}"
    for more in (2, 4):
        for _ in range(more):
            ours.reports(make_port(ours)["id"], fails="bind-vlan")
        wanted = f"{query}&fields=id&fields=sync_since&fields=sync_reason"
        found = neutron.rest("GET", wanted)["ports"]
        assert [port["sync_reason"]["type"] for port in found] == ["SwitchError"] * len(found)
        numbers.append(len(neutron.do("statements", path=wanted)))
    assert len(found) == 6
    assert numbers[0] == numbers[1]
    for other in (query, f"{query}&fields=id&fields=sync_since"):
        assert all("sync_reason" not in port for port in neutron.rest("GET", other)["ports"])
        assert not any("agent_flows_tasks" in text for text in neutron.do("statements", path=other))


def problems(neutron: Neutron, host: Host, query: str = "") -> list[Body]:
    found: list[Body] = neutron.rest("GET", f"/problems?host={host.name}{query}")["problems"]
    return found


def test_what_is_out_of_sync_is_listed_by_cause_and_host(
    neutron: Neutron, ours: Host, make_port: MakePort
) -> None:
    first, second, third = (make_port(ours)["id"] for _ in range(3))
    ours.reports(first, fails="bind-vlan")
    ours.reports(second, fails="apply-security-groups")
    ours.reports(third)
    (problem,) = problems(neutron, ours)
    assert problem == {
        "id": f"SwitchError:{ours.name}",
        "error_type": "SwitchError",
        "message": "the switch refused a flow",
        "host": ours.name,
        "since": neutron.port(first)["sync_since"],
        "ports": {"OUT_OF_SYNC": 2},
        "resource_type": "port",
        "resource_id": first,
    }
    assert neutron.rest("GET", f"/problems/{problem['id']}")["problem"] == problem
    assert problems(neutron, ours, "&error_type=AgentSilent") == []
    (one,) = problems(neutron, ours, f"&resource_id={second}")
    assert (one["ports"], one["resource_id"]) == ({"OUT_OF_SYNC": 1}, second)
    assert neutron.rest("GET", "/problems?limit=1&sort_key=since&sort_dir=desc")["problems"]
    ours.reports(first)
    ours.reports(second)
    assert problems(neutron, ours) == []
    with pytest.raises(Refused) as refused:
        neutron.rest("GET", f"/problems/{problem['id']}")
    assert refused.value.status == 404


def test_pages_of_problems_follow_each_other_and_go_back(
    neutron: Neutron, ours: Host, active: str
) -> None:
    other = Host(neutron, "agent_flows")
    port = neutron.create(
        "ports",
        network_id=neutron.port(active)["network_id"],
        device_owner="compute:nova",
        **{"binding:host_id": other.name},
    )
    other.reports(port["id"], fails="bind-vlan")
    ours.reports(active, fails="bind-vlan")
    query = f"/problems?host={ours.name}&host={other.name}"
    whole = neutron.rest("GET", query)["problems"]
    assert [problem["host"] for problem in whole] == [other.name, ours.name]
    first = neutron.rest("GET", f"{query}&limit=1")
    links = {link["rel"]: link["href"].partition("/v2.0")[2] for link in first["problems_links"]}
    second = neutron.rest("GET", links["next"])
    assert [*first["problems"], *second["problems"]] == whole
    links = {link["rel"]: link["href"].partition("/v2.0")[2] for link in second["problems_links"]}
    assert neutron.rest("GET", links["previous"])["problems"] == first["problems"]


def test_problems_are_for_admins(neutron: Neutron, ours: Host, active: str) -> None:
    ours.reports(active, fails="bind-vlan")
    (problem,) = problems(neutron, ours)
    assert neutron.rest("GET", "/problems", project=PROJECT)["problems"] == []
    with pytest.raises(Refused) as refused:
        neutron.rest("GET", f"/problems/{problem['id']}", project=PROJECT)
    assert refused.value.status == 404
    for query in ("colour=red", "error_type=%00"):
        with pytest.raises(Refused) as refused:
            neutron.rest("GET", f"/problems?{query}")
        assert refused.value.status == 400


NOTHING = {"IN_SYNC": 0, "SYNCING": 0, "OUT_OF_SYNC": 0, "ABSENT": 0, "UNKNOWN": 0}


@pytest.mark.parametrize("kind", ["security-group", "network"])
def test_a_group_and_a_network_show_how_far_their_ports_are_in_sync(
    neutron: Neutron, ours: Host, plain: Host, kind: str
) -> None:
    network = neutron.create("networks", name="rolled")["id"]
    neutron.create("subnets", network_id=network, ip_version=4, cidr="10.9.0.0/24")
    group = neutron.create("security-groups", name="rolled")["id"]
    fields = {"network_id": network, "security_groups": [group], "device_owner": "compute:nova"}
    proven, failed, waiting, _ = (
        neutron.create("ports", **fields, **{"binding:host_id": host.name})["id"]
        for host in (ours, ours, ours, plain)
    )
    ours.reports(proven)
    ours.reports(failed, fails="bind-vlan")
    path = f"/{kind}s/{group if kind == 'security-group' else network}/sync"
    ports = {**NOTHING, "IN_SYNC": 1, "OUT_OF_SYNC": 1, "SYNCING": 1}
    assert neutron.rest("GET", path)["sync"] == {
        "ports": ports,
        "lagging_hosts": [
            {
                "host": ours.name,
                "ports": 2,
                "revision": None,
                "since": neutron.port(waiting)["sync_since"],
            }
        ],
        "more_lagging_hosts": 0,
    }
    assert neutron.rest("GET", path, project=PROJECT)["sync"] == {"ports": ports}
    with pytest.raises(Refused) as refused:
        neutron.rest("GET", path, project=STRANGER)
    assert refused.value.status == 404
    for method, what in (("POST", path), ("PUT", f"{path}/x"), ("DELETE", f"{path}/x")):
        with pytest.raises(Refused) as refused:
            neutron.rest(method, what, {"sync": {}})
        assert refused.value.status == 405
    rolled = [text for text in neutron.do("statements", path=path) if "by_host" in text]
    assert len(rolled) == 1


def test_ports_of_others_do_not_count_for_a_project(neutron: Neutron, ours: Host) -> None:
    network = neutron.create("networks", name="common", shared=True)["id"]
    fields = {"network_id": network, "port_security_enabled": False}
    fields |= {"device_owner": "compute:nova", "binding:host_id": ours.name}
    neutron.create("ports", **fields, project_id=STRANGER)
    neutron.create("ports", **fields)
    path = f"/networks/{network}/sync"
    assert neutron.rest("GET", path)["sync"]["ports"]["SYNCING"] == 2
    mine = neutron.rest("GET", path, project=PROJECT)["sync"]
    assert mine == {"ports": {**NOTHING, "SYNCING": 1}}


def test_ports_are_found_by_their_sync_state(
    neutron: Neutron, ours: Host, active: str, failing: str
) -> None:
    def found(state: str) -> set[str]:
        return {port["id"] for port in neutron.rest("GET", f"/ports?sync_state={state}")["ports"]}

    assert active in found("IN_SYNC") - found("OUT_OF_SYNC")
    assert failing in found("OUT_OF_SYNC") - found("IN_SYNC")


def test_sync_state_is_not_for_users_to_write(neutron: Neutron, active: str) -> None:
    with pytest.raises(Refused) as refused:
        neutron.change(active, sync_state="OUT_OF_SYNC")
    assert refused.value.status == 400


def test_resync_sends_a_cast_to_the_agent(neutron: Neutron, ours: Host, active: str) -> None:
    answer = neutron.rest("PUT", f"/ports/{active}/resync")
    assert answer == {"port": {"id": active, "status": "ACTIVE", "sync_state": "IN_SYNC"}}
    assert neutron.do("casts") == [["resync", ours.name, [active]]]


def test_resync_is_for_admins_and_for_ports_of_hosts_with_the_extension(
    neutron: Neutron, plain: Host, active: str, make_port: MakePort
) -> None:
    other = make_port(plain)["id"]
    for port, who, status in ((active, PROJECT, 403), (active, STRANGER, 404), (other, None, 409)):
        with pytest.raises(Refused) as refused:
            neutron.rest("PUT", f"/ports/{port}/resync", project=who)
        assert refused.value.status == status


def test_text_in_any_script_is_kept(neutron: Neutron, ours: Host, make_port: MakePort) -> None:
    """Neutron's connection to MariaDB may use three-byte UTF-8 only."""
    port = make_port(ours)["id"]
    report = ours.report(port, fails="bind-vlan")
    raw = ours.wire_form(report)
    failed = next(task for task in raw["tasks"] if task["error"])
    failed["error"] |= {"message": "größer als \N{PILE OF POO}", "detail": "\x00\N{SNOWMAN}"}
    assert neutron.do("report", host=ours.name, reports=[raw])["accepted"] == [report.id]
    (task,) = neutron.tasks(f"?resource_id={port}&task_state=FAILED")
    assert task["error"]["message"] == "größer als \N{REPLACEMENT CHARACTER}"
    assert task["error"]["detail"] == "\N{REPLACEMENT CHARACTER}\N{SNOWMAN}"


def test_the_extension_is_listed(neutron: Neutron) -> None:
    found = neutron.rest("GET", "/extensions/agent-flows")["extension"]
    assert found["alias"] == "agent-flows"
