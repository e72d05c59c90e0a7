"""The revision of a security group, as server and agent both see it.

Neutron raises a group's ``revision_number`` when a rule comes or goes, but
tells agents of the rule alone, so what an agent's cache says of the group is
old. Rules themselves never change: their ids say what is in a group.
"""

import hashlib
from collections.abc import Iterable

# Revisions are below 2**62 on the wire (agent_flows.validation.Revision).
_BYTES = 7


def of_rules(rule_ids: Iterable[str]) -> int:
    """A number that stands for a group with these rules, whatever their order."""
    digest = hashlib.sha256("\n".join(sorted(rule_ids)).encode()).digest()
    return int.from_bytes(digest[:_BYTES])
