"""The host, its VMs and how they are wired are those of the agent's tests."""

from tests.functional.agent.conftest import host, make_vm, outside, pair, settled

__all__ = ["host", "make_vm", "outside", "pair", "settled"]
