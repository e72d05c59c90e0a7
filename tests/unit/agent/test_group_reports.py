"""A change of a group is reported once for the host, and never for a port that lacks it."""

from collections.abc import Mapping
from typing import Any

import pytest

from agent_flows.agent.group_reports import GroupReports
from agent_flows.report import FlowName, FlowReport, ResourceType
from lab.model import flow_report, numbered_id

ONE, TWO, THREE = (numbered_id(1, number) for number in (1, 2, 3))
WEB, DB = numbered_id(2, 1), numbered_id(2, 2)


def of(
    port: str, groups: Mapping[str, int], flow: FlowName = FlowName.REFRESH, **fields: Any
) -> FlowReport:
    return flow_report(resource_id=port, flow=flow, security_group_revisions=groups, **fields)


def wired(port: str, groups: Mapping[str, int], **fields: Any) -> FlowReport:
    return of(port, groups, FlowName.WIRE, **fields)


def failed(port: str, groups: Mapping[str, int]) -> FlowReport:
    return of(port, groups, fails="apply-security-groups")


def deliver(host: GroupReports, *reports: FlowReport, **options: Any) -> list[tuple[str, int]]:
    """What is stored: each resource, with the revision of the group if it is one."""
    shortened = host.shorten(reports, **options)
    host.note(shortened)
    return [
        (report.resource_id, report.revision)
        for report in shortened.reports
        if report.resource_type is ResourceType.SECURITY_GROUP
    ] + [
        (report.resource_id, 0)
        for report in shortened.reports
        if report.resource_type is ResourceType.PORT
    ]


def host_with(**groups: Mapping[str, int]) -> GroupReports:
    """All ports of the host are proven."""
    host = GroupReports()
    ports = {"one": ONE, "two": TWO, "three": THREE}
    host.expect([ports[name] for name in groups])
    deliver(host, *(wired(ports[name], revisions) for name, revisions in groups.items()))
    return host


def test_ports_of_a_changed_group_are_one_report() -> None:
    host = host_with(one={WEB: 1}, two={WEB: 1})
    refreshed = [of(ONE, {WEB: 2}), of(TWO, {WEB: 2})]
    [report] = host.shorten(refreshed).reports
    assert (report.resource_type, report.resource_id) == (ResourceType.SECURITY_GROUP, WEB)
    assert (report.revision, report.security_group_revisions) == (2, {})
    assert report.id not in {each.id for each in refreshed}
    assert report.tasks == refreshed[0].tasks or report.tasks == refreshed[1].tasks


def test_a_group_is_reported_when_every_proven_port_has_it() -> None:
    host = host_with(one={WEB: 1}, two={WEB: 1, DB: 1}, three={DB: 1})
    assert deliver(host, of(ONE, {WEB: 2})) == []
    assert deliver(host, of(TWO, {WEB: 2, DB: 1})) == [(WEB, 2)]
    assert deliver(host, of(THREE, {DB: 2})) == []
    assert deliver(host, of(TWO, {WEB: 2, DB: 2})) == [(DB, 2)]


def test_ports_of_one_batch_with_different_revisions_wait_for_the_older_one() -> None:
    host = host_with(one={WEB: 1}, two={WEB: 1})
    assert deliver(host, of(ONE, {WEB: 3}), of(TWO, {WEB: 2})) == []
    assert deliver(host, of(TWO, {WEB: 3})) == [(WEB, 3)]


def test_an_older_batch_that_is_delivered_late_proves_no_newer_group() -> None:
    host = host_with(one={WEB: 1}, two={WEB: 1})
    assert deliver(host, of(ONE, {WEB: 3}), of(TWO, {WEB: 3})) == [(WEB, 3)]
    assert deliver(host, of(TWO, {WEB: 2})) == []
    assert deliver(host, of(TWO, {WEB: 3})) == [(WEB, 3)]


def test_no_group_is_reported_before_each_port_was_reported_by_this_process() -> None:
    """The server may have others as proven, from the process before."""
    host = GroupReports()
    deliver(host, wired(ONE, {WEB: 1}))
    assert deliver(host, of(ONE, {WEB: 2})) == [(ONE, 0)], "it is not known which ports there are"
    host.expect([ONE, TWO, THREE])
    deliver(host, wired(ONE, {WEB: 2}))
    assert deliver(host, of(ONE, {WEB: 3})) == [(ONE, 0)]
    deliver(host, failed(TWO, {WEB: 3}))
    assert deliver(host, of(ONE, {WEB: 4})) == [(ONE, 0)]
    deliver(host, gone=[THREE])
    assert deliver(host, of(ONE, {WEB: 5})) == [(WEB, 5)]


def test_a_port_that_left_holds_no_group_up() -> None:
    host = host_with(one={WEB: 1}, two={WEB: 1})
    assert deliver(host, of(ONE, {WEB: 2})) == []
    assert deliver(host, gone=[TWO]) == [(WEB, 2)]


def test_a_port_that_failed_is_reported_by_itself_and_holds_no_group_up() -> None:
    host = host_with(one={WEB: 1}, two={WEB: 1}, three={WEB: 1})
    stored = deliver(host, of(ONE, {WEB: 2}), failed(TWO, {WEB: 2}), of(THREE, {WEB: 2}))
    assert stored == [(WEB, 2), (TWO, 0)]
    assert deliver(host, of(TWO, {WEB: 2})) == [(TWO, 0)], "to the server it is out of sync"


def test_a_group_that_fails_for_all_its_ports_is_reported_once_and_then_as_realised() -> None:
    host = host_with(one={WEB: 1}, two={WEB: 1}, three={DB: 1})
    broken = host.shorten([failed(ONE, {WEB: 2}), failed(TWO, {WEB: 2})])
    [report] = broken.reports
    assert (report.resource_id, report.revision) == (WEB, 2)
    assert report.failed is not None
    host.note(broken)
    assert deliver(host, of(ONE, {WEB: 2}), of(TWO, {WEB: 2})) == [(WEB, 2)]


def test_a_group_that_fails_for_some_of_its_ports_is_reported_by_these() -> None:
    host = host_with(one={WEB: 1}, two={WEB: 1}, three={WEB: 1})
    stored = deliver(host, failed(ONE, {WEB: 2}), failed(TWO, {WEB: 2}))
    assert stored == [(ONE, 0), (TWO, 0)]


def test_the_report_of_a_group_comes_after_those_of_its_ports() -> None:
    """The server takes it for ports that were reported before it."""
    host = host_with(one={WEB: 1}, two={WEB: 1})
    reports = host.shorten([of(ONE, {WEB: 2}), wired(TWO, {WEB: 2})]).reports
    assert [report.resource_id for report in reports] == [TWO, WEB]


@pytest.mark.parametrize(
    "report",
    [
        of(ONE, {WEB: 2}, revision=2),
        of(ONE, {WEB: 1, DB: 1}),
        of(ONE, {}),
        of(ONE, {WEB: 1}),
        of(ONE, {WEB: 2}, FlowName.RESYNC),
        of(ONE, {WEB: 2}, FlowName.UNWIRE),
        wired(ONE, {WEB: 2}),
    ],
    ids=["own revision", "more groups", "fewer groups", "nothing", "resync", "unwire", "wire"],
)
def test_what_is_about_the_port_itself_is_reported_by_the_port(report: FlowReport) -> None:
    host = host_with(one={WEB: 1}, two={WEB: 1})
    assert (ONE, 0) in deliver(host, report)


def test_a_port_that_the_server_asked_about_is_reported_by_itself() -> None:
    host = host_with(one={WEB: 1}, two={WEB: 1})
    stored = deliver(host, of(ONE, {WEB: 2}), of(TWO, {WEB: 2}), asked=[ONE])
    assert stored == [(WEB, 2), (ONE, 0)]


def test_an_older_server_gets_a_report_of_each_port() -> None:
    host = host_with(one={WEB: 1}, two={WEB: 1})
    stored = deliver(host, of(ONE, {WEB: 2}), failed(TWO, {WEB: 2}), by_group=False)
    assert stored == [(ONE, 0), (TWO, 0)]


def test_reports_that_could_not_be_stored_are_made_again() -> None:
    host = host_with(one={WEB: 1}, two={WEB: 1})
    host.shorten([of(ONE, {WEB: 2}), of(TWO, {WEB: 2})])
    assert deliver(host, of(ONE, {WEB: 2})) == []
    assert deliver(host, of(TWO, {WEB: 2})) == [(WEB, 2)]
