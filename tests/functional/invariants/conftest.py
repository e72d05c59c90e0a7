"""The whole product on one switch, and a record of its calls of ovs-ofctl."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.product import Site
from lab.switch import Switch
from lab.tenant import Tenant

HOST = "host-1"
_QUICK = {"retry_initial": 0.2, "retry_max": 0.5, "heartbeat_interval": 1}


@pytest.fixture
def tenant(switch: Switch, ofctl_calls: Path) -> Iterator[Tenant]:
    with Site(switch, HOST, options={"agent_flows": _QUICK}) as site:
        site.start_all_in_one()
        tenant = Tenant(site)
        yield tenant
        tenant.leave()
