"""The generated parts of the documentation match the code."""

import re

from agent_flows.engine.port_life import MOVES, Event, Phase
from agent_flows.report import FlowName, Trouble
from doc import generate

PACKAGE = generate.ROOT / "agent_flows"
TESTS = generate.ROOT / "tests"


def sections(sample: str) -> dict[str, str]:
    parts = re.split(r"^\[(\w+)\]$", sample, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_flow_diagrams_are_those_of_the_code() -> None:
    assert generate.DIAGRAMS.read_text() == generate.diagrams(), "run tools/docs"


def test_the_sample_configuration_has_every_option_of_ours() -> None:
    # Other sections change with the versions of the libraries they come from.
    committed, fresh = sections(generate.SAMPLE.read_text()), sections(generate.sample())
    ours = {name: text for name, text in fresh.items() if name.startswith("agent_flows")}
    assert set(ours) == {"agent_flows", "agent_flows_server", "agent_flows_api"}
    assert {name: committed.get(name) for name in ours} == ours, "run tools/docs"


def test_every_flow_of_every_host_is_drawn() -> None:
    modules = {str(path.relative_to(generate.ROOT)) for path in PACKAGE.rglob("flows.py")}
    assert {f"{host.__name__.replace('.', '/')}.py" for host in generate.HOSTS.values()} == modules
    drawn = {name for host in generate.HOSTS.values() for name in generate.composers(host)}
    # An audit runs no tasks: its report is of what was found.
    assert drawn == {*FlowName, "absence"} - {FlowName.AUDIT}


def test_every_phase_of_a_port_is_in_its_diagram() -> None:
    moves = {phase for (before, _), after in MOVES.items() for phase in (before, after)}
    assert moves == set(Phase)
    assert {event for _, event in MOVES} == set(Event)


def test_the_table_of_errors_is_that_of_the_code() -> None:
    assert generate.ERRORS.read_text() == generate.errors(), "run tools/docs"


def test_the_table_of_parts_is_that_of_the_layering_test() -> None:
    assert generate.PARTS.read_text() == generate.parts(), "run tools/docs"


def test_no_page_links_to_a_page_that_is_not_there() -> None:
    pages = [generate.ROOT / "README.md", *(generate.ROOT / "doc").rglob("*.md")]
    broken = [
        f"{page.relative_to(generate.ROOT)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []


def test_every_module_that_a_page_names_exists() -> None:
    missing = [
        f"{page.relative_to(generate.ROOT)}: {name}"
        for page in [generate.ROOT / "README.md", *(generate.ROOT / "doc").rglob("*.md")]
        for name in re.findall(r"(?<![\w/.])(?:\w+/)+\w+\.py\b", page.read_text())
        if not any((root / name).exists() for root in (PACKAGE, generate.ROOT, TESTS))
    ]
    assert missing == []


def test_every_trouble_of_a_host_is_explained_to_operators() -> None:
    page = (generate.ROOT / "doc/operator/troubleshooting.md").read_text()
    unexplained = {trouble for trouble in Trouble if f"| `{trouble}` |" not in page}
    assert unexplained == {Trouble.OTHER}
