"""The revision of a security group: a digest of its rules, the same on the server and in the agent.

Neutron raises a group's ``revision_number`` when a rule is added or removed,
but sends agents only the rule; and a firewall driver gets rules without their
ids. All of them have the rules' contents, so a report with this number is
about exactly these rules.
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

# Its names in the rules that drivers get (neutron/agent/firewall.py, DIRECTION_IP_PREFIX).
_PREFIX, *_DRIVERS_PREFIXES = "remote_ip_prefix", "source_ip_prefix", "dest_ip_prefix"
# Revisions are below 2**62 on the wire (agent_flows.validation.Revision).
_BYTES = 7


def of_rules(rules: Iterable[Mapping[str, object]]) -> int:
    """The digest of a group with these rules, valid or not, in any order and with repetitions."""
    return of_lines(map(_line, rules))


def of_objects(rules: Iterable[object]) -> int:
    """The same of Neutron's objects, or rows of its table."""
    return of_lines(map(line_of_object, rules))


def line_of_object(rule: object) -> str:
    """What :func:`of_lines` takes for this rule."""
    return _line({name: getattr(rule, name) for name in NAMES})


def of_lines(lines: Iterable[str]) -> int:
    """The digest of a group with the rules of these lines."""
    text = "\n".join(sorted(set(lines)))
    return int.from_bytes(hashlib.sha256(text.encode(errors="surrogatepass")).digest()[:_BYTES])


def _line(rule: Mapping[str, object]) -> str:
    fields = {name: rule[name] for name in NAMES if rule.get(name) is not None}
    for name in _DRIVERS_PREFIXES:
        if rule.get(name) is not None:
            fields[_PREFIX] = rule[name]
    if _PREFIX in fields:
        fields[_PREFIX] = _normal(str(fields[_PREFIX]))
    return ",".join(f"{name}={value}" for name, value in sorted(fields.items()))


def _normal(prefix: str) -> str:
    """Without host bits, as drivers get it (``normalized_cidr``); the table keeps them."""
    try:
        return str(ipaddress.ip_network(prefix, strict=False))
    except ValueError:
        return prefix
