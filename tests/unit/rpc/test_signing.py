"""Who signed a call: nothing of it can be changed, and no other key can make it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import oslo_messaging
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from oslo_config import cfg

from agent_flows.rpc import transport
from agent_flows.rpc.agent import ServerClient
from agent_flows.rpc.answers import Held
from agent_flows.rpc.desired import Known
from agent_flows.rpc.identity import Identity
from agent_flows.rpc.listener import listener
from agent_flows.rpc.server import ServerEndpoint
from agent_flows.rpc.signing import HostKeys, Signer, fingerprint, public_text, sender_of
from agent_flows.validation import Invalid
from lab import model
from tests.unit.rpc.consumer import LONGEST, Consumer

SENDER = Identity.following(())
KEY = Ed25519PrivateKey.generate()
ARGUMENTS = {"port_ids": [model.new_id()], "known": {"b": 1.5, "a": None}}


def signed(keys: HostKeys | None = None) -> dict[str, Any]:
    return Signer(SENDER, "h1", keys or HostKeys(KEY)).context("get_desired", ARGUMENTS)


def test_the_key_that_signed_a_call_is_known() -> None:
    sender = sender_of(signed(), "get_desired", "h1", ARGUMENTS)
    assert sender is not None
    assert sender.proof is not None
    assert sender.proof.key == public_text(KEY)
    assert sender.proof.number > 0
    assert (sender.boot_id, sender.proof.succeeds) == (SENDER.boot_id, None)


@pytest.mark.parametrize("ctxt", [{}, {"agent_flows_agent": None}])
def test_an_agent_of_a_release_without_identities_has_none(ctxt: dict[str, Any]) -> None:
    assert sender_of(ctxt, "heartbeat", "h1", {}) is None


def test_an_agent_of_a_release_without_keys_has_no_proof() -> None:
    assert sender_of(SENDER.to_context(), "heartbeat", "h1", {}) == SENDER


@pytest.mark.parametrize(
    ("call", "host", "arguments"),
    [
        ("get_ports", "h1", ARGUMENTS),
        ("get_desired", "h2", ARGUMENTS),
        ("get_desired", "h1", {**ARGUMENTS, "port_ids": []}),
    ],
    ids=["another call", "another host", "other arguments"],
)
def test_a_signature_is_good_for_one_call_only(
    call: str, host: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(Invalid, match="signature"):
        sender_of(signed(), call, host, arguments)


@pytest.mark.parametrize(
    ("of", "field", "value"),
    [
        ("agent_flows_agent", "boot_id", model.new_id()),
        ("agent_flows_agent", "predecessors", [model.new_id()]),
        ("agent_flows_signature", "number", 2**62),
        ("agent_flows_signature", "number", -1),
        ("agent_flows_signature", "number", "1"),
        ("agent_flows_signature", "key", public_text(Ed25519PrivateKey.generate())),
        ("agent_flows_signature", "key", "A" * 43 + "="),
        ("agent_flows_signature", "key", "A" * 10_000),
        ("agent_flows_signature", "signature", "A" * 86 + "=="),
        ("agent_flows_signature", "signature", None),
        ("agent_flows_signature", "succeeds", {"key": public_text(KEY), "signature": "?"}),
        (
            "agent_flows_signature",
            "succeeds",
            {"key": public_text(KEY), "signature": "A" * 86 + "=="},
        ),
    ],
)
def test_nothing_of_the_context_can_be_changed(of: str, field: str, value: object) -> None:
    ctxt = signed()
    ctxt[of] = {**ctxt[of], field: value}
    with pytest.raises(Invalid, match="signature"):
        sender_of(ctxt, "get_desired", "h1", ARGUMENTS)


def test_a_message_cannot_contain_a_proof() -> None:
    ctxt = SENDER.to_context()
    ctxt["agent_flows_agent"]["proof"] = {"key": public_text(KEY), "number": 1, "succeeds": None}
    with pytest.raises(Invalid, match="proof"):
        sender_of(ctxt, "heartbeat", "h1", {})


def test_a_replaced_key_vouches_for_the_one_that_follows_it_on_its_own_host_only() -> None:
    keys = HostKeys(Ed25519PrivateKey.generate(), KEY)
    sender = sender_of(signed(keys), "get_desired", "h1", ARGUMENTS)
    assert sender is not None
    assert sender.proof is not None
    assert sender.proof.succeeds == public_text(KEY)
    elsewhere = Signer(SENDER, "h2", HostKeys(keys.current)).context("get_desired", ARGUMENTS)
    succession = signed(keys)["agent_flows_signature"]["succeeds"]
    elsewhere["agent_flows_signature"]["succeeds"] = succession
    with pytest.raises(Invalid, match="signature"):
        sender_of(elsewhere, "get_desired", "h2", ARGUMENTS)


def test_numbers_rise_and_follow_the_server() -> None:
    signer = Signer(SENDER, "h1", HostKeys(KEY))

    def number() -> int:
        return int(signer.context("heartbeat", {})["agent_flows_signature"]["number"])

    assert number() < number() < number()
    own = number()
    signer.follow(Held(0, clock=own, number=own + 10**9))
    assert number() == own + 10**9 + 1
    # The server's clock is an hour behind this host's.
    signer.follow(Held(0, clock=own - 3_600_000_000, number=0))
    assert own - 3_600_000_000 <= number() < own


def test_a_fingerprint_has_the_form_of_openssh() -> None:
    assert fingerprint("A" * 43 + "=") == "SHA256:Zmh6rfhivXdsj8GLjp+OIAiXFIVu4jOzkCpZHQ1fKSU"


@dataclass(frozen=True)
class Site:
    """A server that records who calls it, over RabbitMQ's driver inside this process."""

    bus: oslo_messaging.Transport
    server: Consumer

    def client(self, signer: Signer) -> ServerClient:
        return ServerClient(self.bus, "h1", LONGEST, signer)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    # The global one: oslo.messaging reads its tracing options nowhere else.
    bus = transport.get_transport(cfg.CONF, transport.EMBEDDED_URL)
    consumer = Consumer()
    server = listener(bus, transport.server_target("one"), ServerEndpoint(consumer))
    server.start()
    yield Site(bus, consumer)
    server.stop()
    server.wait()
    bus.cleanup()


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.report([model.flow_report(host="h1")]),
        lambda client: client.get_ports(),
        lambda client: client.get_ports([model.new_id()]),
        lambda client: client.get_desired([model.new_id()], Known()),
        lambda client: client.heartbeat({"troubles": {"ü": "ß\n"}, "age": 0.1 + 0.2}),
        lambda client: client.get_revisions(),
        lambda client: client.get_members(model.new_id()),
    ],
    ids=["report", "all ports", "some ports", "desired", "heartbeat", "revisions", "members"],
)
def test_every_call_of_an_agent_is_signed(
    site: Site, call: Callable[[ServerClient], object]
) -> None:
    call(site.client(Signer(SENDER, "h1", HostKeys(KEY))))
    sender = site.server.senders[-1]
    assert sender is not None
    assert sender.proof is not None
    assert sender.proof.key == public_text(KEY)


def test_a_call_that_another_key_signed_for_the_name_of_this_one_is_refused(
    site: Site,
) -> None:
    client = site.client(Signer(SENDER, "h2", HostKeys(KEY)))
    with pytest.raises(oslo_messaging.RemoteError, match="signature"):
        client.heartbeat({})
