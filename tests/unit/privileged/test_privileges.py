"""What the privileged helper takes from the agent, and when there is none."""

import pytest
from oslo_privsep import priv_context
from oslo_privsep.comm import PrivsepTimeout

from agent_flows import privileged
from agent_flows.engine.task import TaskFailed
from agent_flows.l2 import links as wiring
from agent_flows.l2.links import Link
from agent_flows.privileged import links


@pytest.mark.parametrize(
    "name", ["", "sixteen-letters-", "a/b", "..", ".", "a b", "a\0", "a:1", "a\n", b"tap1", None, 7]
)
def test_what_is_no_name_of_a_link_is_refused(name: object) -> None:
    with pytest.raises(ValueError, match="no name of a link"):
        links.raise_link(name, 1500)
    with pytest.raises(ValueError, match="no name of a link"):
        links.raise_links([("lo", 65535), (name, 1500)])


@pytest.mark.parametrize("mtu", [0, -1, 65536, 2**40, True, "1500", 1500.0, None])
def test_what_is_no_mtu_is_refused(mtu: object) -> None:
    with pytest.raises(ValueError, match="no MTU"):
        links.raise_link("no-such-link", mtu)


def test_helper_that_has_ended_is_not_started_by_sudo() -> None:
    for entry in (links.raise_link, links.raise_links):
        assert privileged.context.is_entrypoint(entry)
    with pytest.raises(BrokenPipeError, match="has ended"):
        privileged.context.start(priv_context.Method.ROOTWRAP)


@pytest.mark.parametrize(
    ("failure", "error_type"),
    [(PrivsepTimeout(), "Timeout"), (BrokenPipeError("the helper has ended"), "OSError")],
)
def test_helper_that_does_not_answer_fails_every_port_at_once(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, error_type: str
) -> None:
    def fails(*_: object) -> None:
        raise failure

    monkeypatch.setattr(links, "raise_links", fails)
    with pytest.raises(TaskFailed) as failed:
        wiring.raise_links([Link("no-such-link", 1500)])
    assert failed.value.whole_batch
    assert failed.value.error.type == error_type
