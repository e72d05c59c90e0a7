"""The machines of the demonstration, their networks, and who may reach whom."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Machine:
    """A machine with one port; ``address`` comes with its prefix length."""

    name: str
    network: str
    address: str
    group: str


@dataclasses.dataclass(frozen=True)
class Attempt:
    """A connection between two machines; ICMP has no port."""

    source: str
    target: str
    protocol: str
    port: int | None = None

    def __str__(self) -> str:
        port = "" if self.port is None else f" {self.port}"
        return f"{self.source} -> {self.target} {self.protocol}{port}"


# Both networks use the same addresses, as tenants do.
VLANS = {"front": 101, "back": 102}
SUBNET = "10.10.0.0/24"
MACHINES = (
    Machine("web1", "front", "10.10.0.11/24", "web"),
    Machine("web2", "front", "10.10.0.12/24", "web"),
    Machine("db1", "front", "10.10.0.21/24", "db"),
    Machine("client", "front", "10.10.0.31/24", "client"),
    Machine("web3", "back", "10.10.0.11/24", "web"),
    Machine("db2", "back", "10.10.0.21/24", "db"),
)
SEVENTH = Machine("db3", "front", "10.10.0.23/24", "db")
NEIGHBOURS = ("web1", "web2", "db1", "client")
"""Of the seventh, on its network; its group lets the first of them in."""
LISTENERS = {"web": (80,), "db": (5432, 5433), "client": ()}

CONNECTIONS = {
    Attempt("web1", "db1", "tcp", 5432): True,
    Attempt("web1", "db1", "tcp", 5433): False,
    Attempt("client", "db1", "tcp", 5432): False,
    Attempt("web2", "db1", "tcp", 5432): True,
    Attempt("web3", "db2", "tcp", 5432): True,
    Attempt("client", "web1", "tcp", 80): True,
    Attempt("client", "web1", "icmp"): True,
    Attempt("client", "db1", "icmp"): False,
    Attempt("web3", "web2", "tcp", 80): False,
}
"""Whether the security groups let it pass."""
