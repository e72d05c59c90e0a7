"""One trace from the flow on a host to the gate in the server, over the bus."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import requests
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from agent_flows import conf as options
from agent_flows.server.service import ServerService
from lab.model import HOST, addresses_of, everything, new_id
from lab.process import wait_until
from lab.server_parts import configuration
from lab.switch import Switch
from lab.vm import Vm
from tests.functional.agent.host import Host

SECONDS = 30


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    """Has every span that ends in this process; a process may set its provider once."""
    made, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(made))
    trace.set_tracer_provider(provider)
    return made


@pytest.fixture
def host(tmp_path: Path, exporter: InMemorySpanExporter) -> Iterator[Host]:
    """A host with a real switch, whose agent calls a server over the bus; both are traced."""
    exporter.clear()
    with Switch() as switch:
        made = Host(switch, tmp_path)
        made.server = None  # type: ignore[assignment]
        try:
            yield made
        finally:
            made._conf.clear_override("enabled", options.TRACING)
            made.close()


@pytest.fixture
def rest(host: Host, tmp_path: Path) -> Iterator[str]:
    """The URL of the server."""
    conf = configuration(f"sqlite:///{tmp_path / 'server.sqlite'}")
    conf.set_override("bind_port", 0, options.API)
    conf.set_override("enabled", True, options.TRACING)
    service = ServerService(conf, host._bus)
    service.start()
    yield f"http://127.0.0.1:{service.api_port}"
    service.stop()


def put(rest: str, collection: str, **body: object) -> str:
    resource_id = str(body.pop("id", None) or new_id())
    kind = collection.removesuffix("s").replace("-", "_")
    answer = requests.put(f"{rest}/{collection}/{resource_id}", json={kind: body}, timeout=SECONDS)
    assert answer.status_code in {200, 201}, answer.text
    return resource_id


def bind(rest: str, vm: Vm, group: str) -> None:
    put(
        rest, "ports", id=vm.port_id, network_id=put(rest, "networks", network_type="local"),
        mac_address=vm.mac, fixed_ips=[{"ip_address": ip} for ip in addresses_of(vm)],
        security_groups=[group], **{"binding:host_id": HOST},
    )  # fmt: skip


def of_gate(exporter: InMemorySpanExporter, port_id: str, ruling: str) -> ReadableSpan | None:
    for span in exporter.get_finished_spans():
        about = span.attributes or {}
        judged = (about.get("agent_flows.port"), about.get("agent_flows.ruling"))
        if span.name == "gate" and judged == (port_id, ruling):
            return span
    return None


def trace_of(exporter: InMemorySpanExporter, span: ReadableSpan) -> Mapping[str, ReadableSpan]:
    """The spans of the same trace by name, when the agent has its answer."""

    def found() -> Mapping[str, ReadableSpan] | None:
        spans = {
            each.name: each
            for each in exporter.get_finished_spans()
            if each.context.trace_id == span.context.trace_id
        }
        return spans if "report" in spans else None

    return wait_until(found, SECONDS, "the message was answered")


def test_flow_tasks_message_and_gate_are_one_trace(
    host: Host, rest: str, make_vm: Callable[..., Vm], exporter: InMemorySpanExporter
) -> None:
    host._conf.set_override("enabled", True, options.TRACING)
    host.start()
    group, vm = (
        put(rest, "security-groups", security_group_rules=everything("ingress")),
        make_vm("traced"),
    )
    bind(rest, vm, group)
    host.plug_quietly(vm)
    gate = wait_until(
        lambda: of_gate(exporter, vm.port_id, "proven"), SECONDS, "the gate judged the port"
    )
    spans = trace_of(exporter, gate)
    flow, message = spans["flow wire"], spans["report"]
    assert flow.parent is None
    assert message.parent is not None
    assert message.parent.span_id == flow.context.span_id
    assert gate.parent is not None
    assert gate.parent.span_id == message.context.span_id
    assert (flow.attributes or {})["agent_flows.ports"] == (vm.port_id,)
    tasks = [
        span for span in spans.values()
        if span.parent is not None and span.parent.span_id == flow.context.span_id
        and span is not message
    ]  # fmt: skip
    assert {"bind-vlan", "apply-security-groups"} <= {task.name for task in tasks}
    for task in tasks:
        assert flow.start_time <= task.start_time <= task.end_time <= flow.end_time + 1_000_000
    assert flow.start_time <= gate.start_time <= gate.end_time

    # A failure is in the trace of its flow, with its reason.
    refused = make_vm("refused")
    bind(rest, refused, group)
    with host.switch.full_table():
        host.plug_quietly(refused)
        failed = wait_until(
            lambda: of_gate(exporter, refused.port_id, "failed"),
            SECONDS,
            "the failure is judged",
        )
    spans = trace_of(exporter, failed)
    for name in ("flow wire", "apply-security-groups"):
        assert spans[name].status.status_code is StatusCode.ERROR
        assert str(spans[name].status.description).startswith("FlowRefused: ")
    assert failed.context.trace_id != gate.context.trace_id
