"""Sets kernel links up. Its callers are other processes: arguments are checked."""

import re
import socket
from collections.abc import Sequence

from pyroute2 import IPRoute
from pyroute2.netlink import NLM_F_ACK, NLM_F_REQUEST
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import RTM_NEWLINK
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from agent_flows.privileged import context

_IFF_UP = 0x1
_BATCH = 100
# net/core/dev.c, dev_valid_name.
_NAME = re.compile(r"(?!\.{1,2}$)[^\s/:\0]{1,15}")
_LARGEST_MTU = 65535


@context.entrypoint
def raise_links(links: Sequence[tuple[str, int]]) -> None:
    """Set up links by name, each with its MTU in bytes, many in few messages, which takes a third
    of the time. Which of them the kernel refused is seen by reading them.

    Raises ValueError for an invalid name or MTU, OSError if netlink cannot be used.
    """
    for name, mtu in links:
        _check(name, mtu)
    with IPRoute() as netlink:
        for start in range(0, len(links), _BATCH):
            requests = []
            for name, mtu in links[start : start + _BATCH]:
                try:
                    index = socket.if_nametoindex(name)
                except OSError:
                    continue
                request = ifinfmsg()
                request["index"] = index
                request["flags"] = request["change"] = _IFF_UP
                request["attrs"] = [("IFLA_MTU", mtu)]
                request["header"]["type"] = RTM_NEWLINK
                request["header"]["flags"] = NLM_F_REQUEST | NLM_F_ACK
                requests.append(request)
            if requests:
                netlink.nlm_request_batch(requests, noraise=True)


@context.entrypoint
def raise_link(name: str, mtu: int) -> str | None:
    """Set one link up; the kernel's error if it refuses. Raises as :func:`raise_links` does."""
    _check(name, mtu)
    with IPRoute() as netlink:
        try:
            netlink.link("set", index=socket.if_nametoindex(name), state="up", mtu=mtu)
        except (NetlinkError, OSError) as refused:
            return str(refused.args[-1])
    return None


def _check(name: object, mtu: object) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"no name of a link: {name!r:.100}")
    if type(mtu) is not int or not 0 < mtu <= _LARGEST_MTU:
        raise ValueError(f"no MTU: {mtu!r:.100}")
