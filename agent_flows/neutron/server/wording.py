"""What a project reads of an error of its port: what it can act on, and nothing of the host.

An agent's message may name its host, interfaces, bridges, VLANs, physical
networks, other ports or other networks; an agent of another release sends
messages unknown to this one. So a project reads the message that
:class:`ErrorType` declares; the agent's own only where it is about what the
project itself wrote. Pure.
"""

import re

from agent_flows.errors import FOR_ADMINISTRATORS, ErrorType, declared

_ABOUT_WHAT_THE_PROJECT_WROTE = frozenset(
    {ErrorType.INVALID_SPEC, ErrorType.MISSING_SPEC, ErrorType.UNSUPPORTED}
)
# Interfaces and their columns in OVSDB are the host's.
_OF_THE_HOST = re.compile(r"other_config|ofport|\b(?:tap|qvo|vhu|br-)", re.IGNORECASE)
_OPENFLOW_ERROR = re.compile(r"\bOFP[A-Z]{2,6}_[A-Z0-9_]+\b")
_REFUSALS = frozenset({ErrorType.FLOW_REFUSED, ErrorType.SWITCH_ERROR})


def for_project(error_type: str, message: str, host: str) -> str:
    """What a project reads instead of the ``message`` of the agent of ``host``."""
    known = declared(error_type)
    if known is None:
        return FOR_ADMINISTRATORS
    if known in _REFUSALS and (code := _OPENFLOW_ERROR.search(message)):
        return f"{known.project}: {code.group()}"
    if (
        known in _ABOUT_WHAT_THE_PROJECT_WROTE
        and host.casefold() not in message.casefold()
        and not _OF_THE_HOST.search(message)
    ):
        return message
    return known.project
