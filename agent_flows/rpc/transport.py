"""Transport, topics, version and the limits of one message."""

import oslo_messaging
import pydantic
from oslo_config import cfg

from agent_flows.validation import Invalid, Uuid, parse

VERSION = "1.1"
"""What a listener understands: every call of this minor version and below."""
FIRST = "1.0"
"""The version of calls and casts that peers of every release understand."""
SERVER_TOPIC = "agent_flows"
AGENT_TOPIC = "agent_flows_agent"

MAX_REPORTS = 500
MAX_BYTES = 4 * 1024 * 1024
MAX_IDS = 10_000

_ID: pydantic.TypeAdapter[str] = pydantic.TypeAdapter(Uuid)

# kombu+memory is the RabbitMQ driver inside one process: a call takes 1.7 ms;
# fake:// polls every 50 ms.
EMBEDDED_URL = "kombu+memory://"


def get_transport(conf: cfg.ConfigOpts, url: str | None = None) -> oslo_messaging.Transport:
    """The RPC transport of ``url``, or of the configured ``transport_url``."""
    return oslo_messaging.get_rpc_transport(conf, url=url)


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
