"""Transport, topics, version and the limits of one message."""

import oslo_messaging
import pydantic
from oslo_config import cfg

from agent_flows.validation import Invalid, Uuid, parse

VERSION = "1.2"
"""What a listener understands: every call of this minor version and below."""
FIRST = "1.0"
"""The version of calls and casts that peers of every release understand."""
SERVER_TOPIC = "agent_flows"
AGENT_TOPIC = "agent_flows_agent"

CHANGE = "agent_flows_change"
"""The key of what a cast carries in its RPC context, where an agent that does not know it ignores
it."""

MAX_REPORTS = 500
MAX_BYTES = 4 * 1024 * 1024
MAX_IDS = 10_000
MAX_CHANGE_BYTES = 8 * 1024
"""Of what changed of groups, in a cast: agents ask for more than that."""

_RABBIT = "oslo_messaging_rabbit"
# Messages that RabbitMQ sends ahead of an acknowledgement. A thread acknowledges a message when it
# begins with it, so this many wait in the process beside those that its threads work on.
_PREFETCH = 32

_ID: pydantic.TypeAdapter[str] = pydantic.TypeAdapter(Uuid)

# kombu+memory is the RabbitMQ driver inside one process: a call takes 1.7 ms;
# fake:// polls every 50 ms.
EMBEDDED_URL = "kombu+memory://"


def get_transport(conf: cfg.ConfigOpts, url: str | None = None) -> oslo_messaging.Transport:
    """The RPC transport of ``url``, or of the configured ``transport_url``."""
    return oslo_messaging.get_rpc_transport(conf, url=url)


def bound_backlog(conf: cfg.ConfigOpts) -> None:
    """Have RabbitMQ keep what a listener cannot take yet, unless the configuration has a bound.

    By default oslo.messaging takes every message at once, and the start of a whole cloud would wait
    in the memory of one process. Call it once there is a transport, and before it listens.
    """
    # The driver registers its options when it is loaded.
    if _RABBIT in conf:
        conf.set_default("rabbit_qos_prefetch_count", _PREFETCH, _RABBIT)


def server_target(server: str | None = None) -> oslo_messaging.Target:
    """The target of calls to the server; ``server`` is the name of one listening process."""
    return oslo_messaging.Target(topic=SERVER_TOPIC, server=server, version=FIRST)


def agent_target(host: str | None = None) -> oslo_messaging.Target:
    """The target of casts to the agent of ``host``."""
    return oslo_messaging.Target(topic=AGENT_TOPIC, server=host, version=FIRST)


def id_list(field_name: str, ids: object) -> list[str]:
    """A message's list of ids, validated; raises :class:`Invalid`."""
    if not isinstance(ids, list) or len(ids) > MAX_IDS:
        raise Invalid(field_name, type(ids).__name__, f"must be a list of at most {MAX_IDS} ids")
    try:
        return [parse(_ID, item) for item in ids]
    except Invalid as exc:
        raise Invalid(field_name, exc.value, "must be lower-case UUIDs") from None
