"""Alert rules and dashboard: what they name exists, and each alert fires when it is to fire."""

import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent_flows import metrics

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "etc/prometheus/agent_flows.rules.yaml"
FIRED = Path(__file__).parent / "alerts/fire.yaml"
DASHBOARD = ROOT / "etc/grafana/agent_flows.json"

SERIES = {
    name: metric for metric in (*metrics.OF_AGENT, *metrics.OF_SERVER) for name in metric.series
}
# What Prometheus itself adds.
ADDED = {"instance", "job", "le"}


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found = json.loads(DASHBOARD.read_text())["panels"]
    return [panel for panel in found if panel["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    """Every expression, with the name of its alert or panel."""
    for alert in alerts():
        yield alert["alert"], alert["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for variable in json.loads(DASHBOARD.read_text())["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["definition"]


def faults(expression: str) -> list[str]:
    """What the expression names that no metric has."""
    found = []
    names = re.findall(r"\bagent_flows_\w+", expression)
    if not names:
        found.append("no metric")
    found += [f"metric {name}" for name in names if name not in SERIES]
    known = ADDED | {label for name in names if name in SERIES for label in SERIES[name].labels}
    for name, matchers in re.findall(r"\b(agent_flows_\w+)\{([^}]*)\}", expression):
        allowed = ADDED | set(SERIES[name].labels if name in SERIES else ())
        labels = re.findall(r"(\w+)\s*[=!]~?", matchers)
        found += [f"label {label} of {name}" for label in labels if label not in allowed]
    for grouping in re.findall(r"\bby \(([^)]*)\)", expression):
        labels = [label.strip() for label in grouping.split(",")]
        found += [f"label {label}" for label in labels if label not in known]
    return found


def promtool(*argv: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["promtool", *argv], capture_output=True, text=True, check=False)


def test_promtool_finds_no_fault_in_the_rules() -> None:
    done = promtool("check", "rules", "--lint-fatal", str(RULES))
    assert done.returncode == 0, done.stderr + done.stdout


def test_each_alert_fires_when_it_is_to_fire_and_not_before() -> None:
    done = promtool("test", "rules", str(FIRED))
    assert done.returncode == 0, done.stderr + done.stdout


def test_of_each_alert_it_is_tested_that_it_fires() -> None:
    tests = [each for test in yaml.safe_load(FIRED.read_text())["tests"] for each in
             test["alert_rule_test"]]  # fmt: skip
    fired = {test["alertname"] for test in tests if test.get("exp_alerts")}
    assert fired == {alert["alert"] for alert in alerts()}


@pytest.mark.parametrize(("name", "expression"), list(expressions()))
def test_an_expression_names_only_declared_metrics_and_their_labels(
    name: str, expression: str
) -> None:
    assert faults(expression) == []


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("up == 0", "no metric"),
        ("agent_flows_gone > 0", "metric agent_flows_gone"),
        ("agent_flows_drifts > 0", "metric agent_flows_drifts"),
        ('agent_flows_queue{host="a"} > 0', "label host of agent_flows_queue"),
        ("sum by (source, port) (agent_flows_trouble)", "label port"),
    ],
)
def test_an_expression_with_a_fault_is_found(expression: str, fault: str) -> None:
    assert faults(expression) == [fault]


def test_promtool_reads_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": _without_variables(target["expr"])}
        for number, target in enumerate(target for panel in panels() for target in panel["targets"])
    ]
    file = tmp_path / "dashboard.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = promtool("check", "rules", str(file))
    assert done.returncode == 0, done.stderr + done.stdout


def _without_variables(expression: str) -> str:
    return re.sub(r"\$(host|instance)\b", ".*", expression.replace("$__rate_interval", "5m"))


def test_every_metric_of_an_agent_is_on_the_dashboard_or_in_an_alert() -> None:
    text = " ".join(expression for _, expression in expressions())
    named = set(re.findall(r"agent_flows_\w+", text))
    unused = [each.name for each in metrics.OF_AGENT if not named.intersection(each.series)]
    # A scrape of an agent has it; alerts are about agent_flows_agent_trouble, which names the host.
    assert unused == ["agent_flows_trouble"]


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_has_a_runbook_with_its_name(alert: dict[str, Any]) -> None:
    page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    assert anchor == alert["alert"].lower()
    assert f"\n## {alert['alert']}\n" in (ROOT / page).read_text()
    assert alert["labels"]["severity"] in {"critical", "warning"}


def test_no_runbook_is_about_an_alert_that_is_not_there() -> None:
    headings: Sequence[str] = re.findall(
        r"^## (AgentFlows\w+)$", (ROOT / "doc/operator/alerts.md").read_text(), re.MULTILINE
    )
    assert headings == [alert["alert"] for alert in alerts()]
