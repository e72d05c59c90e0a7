"""Reports as any agent would: ``agent_of_another_host.py URL HOST``, reports on standard input.

A program of its own, because its connections belong into another network namespace.
"""

import dataclasses
import json
import sys

from agent_flows import threads

# As every process of ours does, before anything imports oslo.messaging.
threads.prefer()

import oslo_messaging  # noqa: E402
from oslo_config import cfg  # noqa: E402

from agent_flows.rpc import codec  # noqa: E402
from agent_flows.rpc.agent import ServerClient  # noqa: E402
from agent_flows.rpc.transport import get_transport  # noqa: E402


def main() -> None:
    url, host = sys.argv[1:]
    reports = [codec.report_from_wire(each) for each in json.load(sys.stdin)]
    oslo_messaging.set_transport_defaults("neutron")  # Neutron's exchange, as its agents'
    # oslo.messaging looks up some of its options there in any case.
    answer = ServerClient(get_transport(cfg.CONF, url), host, timeout=20).report(reports)
    json.dump(dataclasses.asdict(answer), sys.stdout)


if __name__ == "__main__":
    main()
