"""An agent that is not root uses the switch by the helper Neutron's agent has for its own tools."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from agent_flows.secgroups import cookie
from lab.switch import Switch
from tests.functional.secgroups.host import BRIDGE

# As Neutron's agent with a privsep helper, which is root; then nobody.
_NOBODY = 65534
_AGENT = f"""\
import os, sys
from oslo_service import backend
backend.init_backend(backend.BackendType.THREADING)
from neutron import privileged as neutrons
from oslo_privsep import priv_context
from agent_flows.neutron import privileged
from agent_flows.secgroups.ofctl import Ofctl, SwitchError
neutrons.default.start(priv_context.Method.FORK)
os.setgroups([])
os.setgid({_NOBODY})
os.setuid({_NOBODY})
ofctl = Ofctl(sys.argv[1], sys.argv[2], 10, privileged.execute)
try:
    ofctl.bundle(["add table=60,priority=7,cookie={cookie.OWNER << 48:#x} actions=drop"])
    print(len(ofctl.dump()), flush=True)
    ofctl.bundle(["add table=60,priority=7 actions=nonsense"])
except SwitchError as refused:
    print(refused, flush=True)
os._exit(0)
"""


@pytest.fixture
def bridge(dummy_switch: Switch) -> Iterator[Switch]:
    dummy_switch.add_bridge(BRIDGE)
    yield dummy_switch
    dummy_switch.vsctl("del-br", BRIDGE)


def test_flows_are_written_read_and_refused_as_by_root(bridge: Switch) -> None:
    argv = [sys.executable, "-W", "ignore", "-c", _AGENT, str(bridge.run_dir), BRIDGE]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    written, refused = ran.stdout.splitlines()
    assert written == "1"
    assert refused.startswith("the switch refused a flow: unknown action nonsense")
