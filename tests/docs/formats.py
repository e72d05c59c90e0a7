"""Hooks of schemathesis: examples of the formats that the OpenAPI document names."""

import schemathesis
from hypothesis import strategies as st

_MACS = ["02:23:45:67:89:ab", "fa:16:3e:00:00:01", "FA-16-3E-00-00-02", "00:00:00:00:00:00"]
_CIDRS = ["10.0.0.0/24", "10.0.0.5", "192.0.2.128/25", "2001:db8::/64", "10.0.0.5/24", "0.0.0.0/0"]
_PROTOCOLS = ["tcp", "UDP", "icmp", "icmpv6", "any", "47", "256", "nonsense"]

schemathesis.openapi.format("mac", st.sampled_from(_MACS))
schemathesis.openapi.format("cidr", st.sampled_from(_CIDRS))
schemathesis.openapi.format("protocol", st.sampled_from(_PROTOCOLS))
