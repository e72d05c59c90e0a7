"""The generated parts of the documentation match the code."""

import re

import yaml
from oslo_policy import policy

from agent_flows.engine.port_life import MOVES, Event, Phase
from agent_flows.neutron.server import policies as neutrons_policies
from agent_flows.report import FlowName, Trouble
from agent_flows.server import policies
from doc import generate, rest_reference

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
    assert set(ours) == {
        "agent_flows",
        "agent_flows_server",
        "agent_flows_api",
        "agent_flows_tracing",
    }
    assert {name: committed.get(name) for name in ours} == ours, "run tools/docs"


def test_the_sample_policy_has_every_rule_and_can_be_read() -> None:
    sample = generate.POLICY.read_text()
    # The layout is oslo.policy's and changes with its version. Without
    # the comment signs before them, the rules are a policy file.
    lines = [line[1:] for line in sample.splitlines() if line.startswith('#"')]
    rules = [*policies.list_rules(), *neutrons_policies.list_rules()]
    assert policy.parse_file_contents("\n".join(lines)) == {
        rule.name: rule.check_str for rule in rules
    }, "run tools/docs"


def test_the_sample_of_options_names_every_library_that_the_programs_configure() -> None:
    namespaces = set(re.findall(r"^# From (\S+)$", generate.SAMPLE.read_text(), re.MULTILINE))
    asked = re.findall(
        r"^namespace = (\S+)$",
        (generate.ROOT / "etc/config-generator.conf").read_text(),
        re.MULTILINE,
    )
    assert namespaces == set(asked)


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


def test_the_tables_of_metrics_are_those_of_the_code() -> None:
    assert generate.METRICS.read_text() == generate.metrics(), "run tools/docs"


def test_the_reference_of_the_rest_api_is_that_of_the_code() -> None:
    assert generate.REST.read_text() == rest_reference.page(), "run tools/docs"


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


def test_the_start_page_and_the_order_of_the_site_have_every_page() -> None:
    doc = generate.ROOT / "doc"
    pages = [*doc.rglob("*.md"), *doc.rglob("*.rst")]
    names = {str(page.relative_to(doc).with_suffix("")) for page in pages}
    toc = yaml.safe_load((doc / "_toc.yml").read_text())
    ordered = [entry["file"] for part in toc["subtrees"] for entry in part["entries"]]
    assert sorted([*ordered, toc["root"]]) == sorted(names), "see doc/_toc.yml"
    start = (doc / "index.md").read_text()
    assert [page for page in ordered if f"({page}." not in start] == [], "see doc/index.md"
