"""Errors shown to projects contain nothing about the host."""

import pytest

from agent_flows.errors import ErrorType
from agent_flows.neutron.server.wording import for_project

HOST = "Compute-7.example"


@pytest.mark.parametrize("error_type", ["FlowRefused", "SwitchError"])
@pytest.mark.parametrize(
    ("message", "read"),
    [
        ("the switch refused a flow", "the switch refused a flow"),
        (
            "bridge br-ex refused a flow of the network: OFPFMFC_TABLE_FULL",
            "the switch refused a flow: OFPFMFC_TABLE_FULL",
        ),
        ("ovs-ofctl: /run/openvswitch/br-int.mgmt: no", "the switch refused a flow"),
    ],
)
def test_a_project_reads_only_the_openflow_error_of_a_refusal(
    error_type: str, message: str, read: str
) -> None:
    assert for_project(error_type, message, HOST) == read


@pytest.mark.parametrize(
    "error_type", ["AgentSilent", "AgentNeverSeen", "ReportOverdue", "Timeout", "KeyError", "New"]
)
def test_no_message_names_the_host(error_type: str) -> None:
    read = for_project(error_type, f"no report from {HOST} since noon", HOST)
    assert HOST.casefold() not in read.casefold()
    assert read


@pytest.mark.parametrize("error_type", ["InvalidSpec", "MissingSpec", "Unsupported"])
def test_a_project_reads_the_agents_message_about_its_own_rules(error_type: str) -> None:
    message = "security group 6b4a8f0e-0000-4000-8000-000000000001: unknown protocol 'tpc'"
    assert for_project(error_type, message, HOST) == message
    for inside in ("compute-7.EXAMPLE", "ofport 5", "br-int", "tap6b4a8f0e", "other_config"):
        assert inside not in for_project(error_type, f"{message}, {inside}", HOST)


def test_only_errors_of_the_host_itself_have_no_message_for_projects() -> None:
    unknown = for_project("KeyError", HOST, HOST)
    assert {type_ for type_ in ErrorType if for_project(type_, "", HOST) == unknown} == {
        ErrorType.TOOL_MISSING,
        ErrorType.OS_ERROR,
        ErrorType.FILE_NOT_FOUND,
        ErrorType.PERMISSION_ERROR,
        ErrorType.MEMORY_ERROR,
    }
