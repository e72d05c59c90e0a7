"""The revision of a security group: what its rules say, as server and agent both see it.

Neutron raises a group's ``revision_number`` when a rule comes or goes, but
tells agents of the rule alone; and a firewall driver is told rules without
their ids. What the rules say is known to all of them, so a report that names
this number is about exactly these rules.
"""

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping

NAMES = (
    "direction",
    "ethertype",
    "protocol",
    "port_range_min",
    "port_range_max",
    "remote_group_id",
    "remote_address_group_id",
    "remote_ip_prefix",
)
"""What narrows a rule: the columns of Neutron's table, and attributes of its objects."""

# Under which names drivers are told of it (neutron/agent/firewall.py, DIRECTION_IP_PREFIX).
_PREFIX, *_TOLD_PREFIXES = "remote_ip_prefix", "source_ip_prefix", "dest_ip_prefix"
# Revisions are below 2**62 on the wire (agent_flows.validation.Revision).
_BYTES = 7


def of_rules(rules: Iterable[Mapping[str, object]]) -> int:
    """A number that stands for a group with these rules, whatever their order, however often each
    is said, and whether or not they make sense."""
    said = sorted({_said(each) for each in rules})
    digest = hashlib.sha256("\n".join(said).encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:_BYTES])


def of_objects(rules: Iterable[object]) -> int:
    """The same of Neutron's objects, or rows of its table."""
    return of_rules({name: getattr(rule, name) for name in NAMES} for rule in rules)


def _said(rule: Mapping[str, object]) -> str:
    told = {name: rule[name] for name in NAMES if rule.get(name) is not None}
    for name in _TOLD_PREFIXES:
        if rule.get(name) is not None:
            told[_PREFIX] = rule[name]
    if _PREFIX in told:
        told[_PREFIX] = _normal(str(told[_PREFIX]))
    return ",".join(f"{name}={value}" for name, value in sorted(told.items()))


def _normal(prefix: str) -> str:
    """Drivers are told prefixes without host bits (``normalized_cidr``), the table has them."""
    try:
        return str(ipaddress.ip_network(prefix, strict=False))
    except ValueError:
        return prefix
