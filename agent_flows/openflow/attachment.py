"""Where a port is plugged in, as the compiler needs it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Attachment:
    """``ofport`` is the interface's OpenFlow port number on the integration bridge,
    ``vlan`` the network's local VLAN on this host (1 to 4094)."""

    port_id: str
    ofport: int
    vlan: int

    def __post_init__(self) -> None:
        # OFPP_MAX (OpenFlow 1.0): numbers above it are reserved ports such as NORMAL.
        if not 1 <= self.ofport < 0xFF00:
            raise ValueError(f"ofport {self.ofport} is not a port of a bridge")
        if not 1 <= self.vlan <= 4094:
            raise ValueError(f"{self.vlan} is not a VLAN")
