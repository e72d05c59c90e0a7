"""Whatever a message contains: it is refused in few words, or it means what it may mean.

Each property is tried with ten thousand messages in every run.
"""

import json
import random
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from agent_flows.rpc import codec, desired
from agent_flows.rpc.agent import AgentEndpoint
from agent_flows.rpc.desired import Known
from agent_flows.rpc.identity import HostTaken, Identity
from agent_flows.rpc.refusals import KINDS, UNKNOWN
from agent_flows.rpc.server import ServerEndpoint
from agent_flows.rpc.signing import HostKeys, Signer
from agent_flows.secgroups.firewall import Firewall
from agent_flows.spec import DesiredState
from agent_flows.validation import Invalid
from lab import model
from lab.server_parts import Server, running
from tests.unit import hostile
from tests.unit.rpc.consumer import GROUP, HOST, PORT, Agent, report
from tests.unit.secgroups.specs import attached
from tests.unit.secgroups.tables import Tables

SEEDS = st.integers(0, 2**32 - 1)
AT_ONCE = 200
EXAMPLES = 50
PROCESS = Identity.following(())
SIGNER = Signer(PROCESS, HOST, HostKeys(Ed25519PrivateKey.generate()))
# What a flow may consist of; a line break would begin another one.
FLOW = re.compile(r"[ -~]+")
ACTIONS = re.compile(r"actions=")


def short(reasons: Sequence[str]) -> None:
    """One printable line each, whatever the message contained."""
    assert [each for each in reasons if len(each) > 1_000 or not each.isprintable()] == []


def calls() -> dict[str, dict[str, Any]]:
    """A valid call of each kind."""
    reports = [codec.to_wire(report(n, fails="bind-vlan" if n % 2 else None)) for n in (1, 2)]
    known = Known({GROUP.id: 4}, {GROUP.id: 2}, {}).to_wire()
    made: dict[str, dict[str, Any]] = {
        "report": {"reports": reports},
        "get_ports": {"port_ids": [PORT]},
        "get_desired": {"port_ids": [PORT], "known": known},
        "heartbeat": {"state": {"ports": 2, "troubles": {"ovsdb": "away"}, "bridge": "br-int"}},
        "get_revisions": {},
        "get_members": {"security_group": GROUP.id},
    }
    return {
        name: {"ctxt": SIGNER.context(name, arguments), "host": HOST, **arguments}
        for name, arguments in made.items()
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(f"sqlite:///{tmp_path_factory.mktemp('hostile') / 'server.sqlite'}") as made:
        yield made


@given(SEEDS)
@settings(max_examples=EXAMPLES, phases=[Phase.generate])
def test_a_call_is_refused_in_few_words_or_answered(server: Server, seed: int) -> None:
    """And nothing is stored: the reports are about no port of the server."""
    draw = random.Random(seed)
    endpoint = ServerEndpoint(server.store)
    valid = list(calls().items())
    reasons: list[str] = []
    for _ in range(AT_ONCE):
        name, call = draw.choice(valid)
        sent = hostile.changed(draw, call)
        if not isinstance(sent, dict):
            sent = {"ctxt": sent, "host": HOST}
        try:
            answer = getattr(endpoint, name)(**{**call, **{k: sent.get(k) for k in call}})
        except (Invalid, HostTaken) as exc:
            reasons.append(str(exc))
        else:
            assert len(json.dumps(answer)) < 200_000, sent
    short(reasons)
    assert set(endpoint.refusals.counts) <= KINDS | {UNKNOWN}
    assert server.find("tasks") == []
    assert len(server.find("agents")) <= AT_ONCE


@given(SEEDS)
@settings(max_examples=EXAMPLES, phases=[Phase.generate])
def test_what_a_server_answers_is_refused_or_makes_flows_of_the_spec_only(seed: int) -> None:
    draw = random.Random(seed)
    group = model.group(
        model.ingress(protocol="tcp", port=22, remote_ip_prefix="10.0.0.0/8"),
        model.ingress(remote_group_id=GROUP.id),
        id=GROUP.id,
    )
    port = model.port(group, id=PORT, host=HOST, fixed_ips=["10.0.0.5"])
    documents = [codec.to_wire(group), codec.to_wire(port)]
    reasons: list[str] = []
    for _ in range(AT_ONCE):
        raw = hostile.changed(draw, documents)
        try:
            state = codec.state_from_wire(raw)
        except Invalid as exc:
            reasons.append(str(exc))
        else:
            reasons += [refused.reason for refused in state.refused.values()]
            written(state)
    short(reasons)


def written(state: DesiredState) -> None:
    """Compile what is complete; every line is one flow in ovs-ofctl's own letters."""
    tables = Tables()
    firewall = Firewall(tables)  # type: ignore[arg-type]
    firewall.start()
    complete = [
        port
        for port in state.ports.values()
        if all(group in state.security_groups for group in port.security_groups)
    ]
    if not complete:
        return
    firewall.apply(
        DesiredState.of([*complete, *state.security_groups.values()]),
        {port.id: attached(port, 7) for port in complete},
    )
    for bundle in tables.bundles:
        for line in bundle:
            assert FLOW.fullmatch(line), line
            assert len(ACTIONS.findall(line)) <= 1, line


@given(SEEDS)
@settings(max_examples=EXAMPLES, phases=[Phase.generate])
def test_what_a_cast_carries_is_refused_or_a_change(seed: int) -> None:
    draw = random.Random(seed)
    endpoint = AgentEndpoint(Agent())
    change = {
        "security_groups": [
            {"id": GROUP.id, "revision": 5, "since": 4, "rules": codec.to_wire(GROUP)["rules"]}
        ],
        "members": [],
    }
    desired.change_from_wire(change)
    reasons: list[str] = []
    for _ in range(AT_ONCE):
        sent = hostile.changed(draw, {"ids": [GROUP.id], "ctxt": {"agent_flows_change": change}})
        fields = sent if isinstance(sent, dict) else {"ids": sent}
        ctxt = fields.get("ctxt")
        try:
            endpoint.security_groups_changed(
                ctxt if isinstance(ctxt, dict) else {}, fields.get("ids")
            )
        except Invalid as exc:
            reasons.append(str(exc))
    short(reasons)
    assert set(endpoint.refusals.counts) <= KINDS | {UNKNOWN}
