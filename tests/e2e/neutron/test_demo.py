"""``tools/neutron demo``: the quickstart's demonstration, through Neutron's API."""

import json
import signal
import subprocess

from lab.leftovers import left_behind
from tests.e2e.demo_document import check_document
from tests.e2e.neutron.test_tool import TOOL


def test_the_demo_prints_the_quickstarts_document_and_leaves_nothing_behind() -> None:
    with subprocess.Popen(
        [TOOL, "demo", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
        out, err = demo.communicate(timeout=300)
    assert demo.returncode == 0, err
    check_document(json.loads(out))
    assert left_behind(demo.pid) == []


def test_an_interrupted_demo_leaves_nothing_behind() -> None:
    with subprocess.Popen(
        [TOOL, "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "MariaDB" in line:
                assert left_behind(demo.pid) != []
                demo.send_signal(signal.SIGINT)
                break
        demo.communicate(timeout=90)
    assert demo.returncode == 130
    assert left_behind(demo.pid) == []
