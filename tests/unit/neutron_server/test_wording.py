"""What projects read of errors names nothing that is the host's."""

import pytest

from agent_flows import remedies
from agent_flows.neutron.server.wording import for_project

HOST = "Compute-7.example"


@pytest.mark.parametrize("error_type", ["FlowRefused", "SwitchError"])
@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("the switch refused a flow", "the switch refused a flow"),
        (
            "bridge br-ex refused a flow of the network: OFPFMFC_TABLE_FULL",
            "the switch refused a flow: OFPFMFC_TABLE_FULL",
        ),
        ("ovs-ofctl: /run/openvswitch/br-int.mgmt: no", "the switch refused a flow"),
    ],
)
def test_a_refusal_is_told_with_the_openflow_error_alone(
    error_type: str, said: str, read: str
) -> None:
    assert for_project(error_type, said, HOST) == read


@pytest.mark.parametrize(
    "error_type", ["AgentSilent", "AgentNeverSeen", "ReportOverdue", "Timeout", "KeyError", "New"]
)
def test_the_host_is_never_named(error_type: str) -> None:
    read = for_project(error_type, f"no word from {HOST} since noon", HOST)
    assert HOST.casefold() not in read.casefold()
    assert read


@pytest.mark.parametrize("error_type", ["InvalidSpec", "MissingSpec", "Unsupported"])
def test_what_is_wrong_with_the_projects_own_rules_is_told_as_the_agent_said_it(
    error_type: str,
) -> None:
    said = "security group 6b4a8f0e-0000-4000-8000-000000000001: unknown protocol 'tpc'"
    assert for_project(error_type, said, HOST) == said
    for inside in ("compute-7.EXAMPLE", "ofport 5", "br-int", "tap6b4a8f0e", "other_config"):
        assert inside not in for_project(error_type, f"{said}, {inside}", HOST)


def test_every_documented_type_of_error_has_a_message_of_its_own_for_projects() -> None:
    unforeseen = for_project("KeyError", HOST, HOST)
    types = {
        each
        for explanation in (*remedies.EXPLANATIONS, *remedies.OF_OTHER_DRIVERS)
        for each in explanation.types
    }
    # These say what the host lacks, which is nothing to a project.
    of_the_host = {"ToolMissing", "OSError", "FileNotFoundError", "PermissionError", "MemoryError"}
    assert {each for each in types if for_project(each, "", HOST) == unforeseen} <= of_the_host
