"""An agent that cannot receive the server's casts reports that as a trouble."""

from unittest import mock

import kombu
from oslo_config import cfg

from agent_flows import conf as options
from agent_flows.report import Trouble
from agent_flows.rpc import transport
from agent_flows.rpc.agent import AgentEndpoint
from agent_flows.rpc.listener import Listener
from agent_flows.rpc.server import AgentClient
from agent_flows.supervision import Troubles
from lab.process import wait_until
from lab.rabbit import Rabbit

HOST = "compute-9"


def test_a_queue_declared_with_other_settings_is_a_trouble_until_it_is_gone():
    port_id = "00000000-0000-4000-8000-000000000001"
    with Rabbit() as rabbit:
        url = rabbit.url.replace("rabbit://", "amqp://")
        with kombu.Connection(url) as connection:
            quorum = {"x-queue-type": "quorum"}
            kept = kombu.Queue(
                f"{transport.AGENT_TOPIC}.{HOST}", durable=True, queue_arguments=quorum
            )
            kept(connection.default_channel).declare()
        # oslo.messaging reads some of its options from the global object only.
        conf = options.register(cfg.CONF)
        conf([], default_config_files=[])
        bus = transport.get_transport(conf, rabbit.url)
        troubles, agent = Troubles(), mock.Mock()
        listener = Listener(bus, transport.agent_target(HOST), AgentEndpoint(agent), troubles)
        listener.start()
        try:
            wait_until(lambda: Trouble.LISTENER in troubles.current(), 10, "the trouble")
            assert "PRECONDITION_FAILED" in troubles.current()[Trouble.LISTENER]
            with kombu.Connection(url) as connection:
                kept(connection.default_channel).delete()
            wait_until(lambda: troubles.current() == {}, 60, "the trouble is over")
            AgentClient(bus).ports_changed(HOST, [port_id])
            wait_until(lambda: agent.ports_changed.called, 10, "the cast")
            agent.ports_changed.assert_called_once_with([port_id])
        finally:
            listener.stop()
            listener.wait()
            bus.cleanup()
            conf.clear()
