"""One dummy switch with a bridge for each firewall; how many examples are tried."""

import os
import random
import zlib
from collections.abc import Iterator

import pytest

from lab.switch import Switch
from tests.conformance.bridges import Bridges
from tests.conformance.examples import Examples
from tests.conformance.trace import Tracer

WORLDS = 30
"""For each property, unless ``--examples`` is given."""


@pytest.fixture(scope="session", autouse=True)
def root() -> None:
    """The suite creates network namespaces."""
    if os.geteuid() != 0:
        pytest.exit("needs root: it creates network namespaces; try: sudo tools/test conformance")


@pytest.fixture(scope="session")
def bridges() -> Iterator[Bridges]:
    with Switch(dummy=True) as switch, Tracer(switch.run_dir / "ovs-vswitchd.ctl") as tracer:
        yield Bridges(switch, tracer)


@pytest.fixture
def examples(request: pytest.FixtureRequest) -> Examples:
    """As many worlds as were asked for; different ones each time if they were."""
    config = request.config
    count = config.getoption("--examples", default=None)
    capture = config.pluginmanager.getplugin("capturemanager")

    def say(text: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\n{request.node.name}: {text}", end="", flush=True)

    if count is None:
        return Examples(WORLDS, zlib.crc32(request.node.name.encode()), lambda _: None)
    given = config.getoption("--hypothesis-seed", default=None)
    seed = int(given) if given else random.randrange(1 << 32)
    say(f"{count} worlds; the same again by --examples {count} --hypothesis-seed={seed}")
    return Examples(count, seed, say)
