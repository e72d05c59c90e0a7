"""Any course of events leaves in the tables what the last desired state alone would have put
there, and at no time two flows that replace each other."""

import re

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent_flows.engine.task import PortErrors
from agent_flows.secgroups.firewall import Firewall
from agent_flows.spec import DesiredState, PortSpec, SecurityGroupSpec
from lab.model import numbered_id
from tests.unit.secgroups.specs import attached, group, port
from tests.unit.secgroups.tables import Tables

NUMBERS = st.integers(1, 4)
VIRTUAL_MAC = "00:00:5e:00:01:01"
PAIRS = st.lists(
    st.sampled_from([
        {"ip_address": "10.0.0.77/32", "mac_address": VIRTUAL_MAC},
        {"ip_address": "10.0.0.0/24"},
        {"ip_address": "::/0"},
        {"ip_address": "10.0.0.1/32", "mac_address": "fa:16:3e:00:00:01"},
    ]),
    max_size=2,
)  # fmt: skip
MEMBERS = st.lists(
    st.sampled_from([
        {"address": "10.0.0.1/32"},
        {"address": "10.0.0.2/32"},
        {"address": "0.0.0.0/0", "mac_address": VIRTUAL_MAC},
        {"address": "2001:db8::/64"},
    ]),
    max_size=3,
)  # fmt: skip


def rules_to(n: int) -> list[dict[str, object]]:
    remote = numbered_id(2, n)
    return [
        {"direction": "ingress", "remote_group_id": remote, "protocol": "tcp"},
        {"direction": "ingress", "ethertype": "IPv6", "remote_group_id": remote},
        {"direction": "egress"},
    ]


class Events(RuleBasedStateMachine):
    """Four ports, four groups; group n refers to the members of one group."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = Tables()
        self.firewall = Firewall(self.tables)  # type: ignore[arg-type]
        self.firewall.start()
        self.ports: dict[str, tuple[PortSpec, int, int]] = {}
        self.revision = 1
        self.groups: dict[str, SecurityGroupSpec] = {}
        for n in range(1, 5):
            self.set_group(n, n % 4 + 1, [])
        self.swept = True

    def desired(self) -> DesiredState:
        return DesiredState.of([*self.groups.values(), *(p for p, _, _ in self.ports.values())])

    def apply(self, firewall: Firewall, port_ids: list[str]) -> None:
        attachments = {
            i: attached(self.ports[i][0], self.ports[i][1], self.ports[i][2]) for i in port_ids
        }
        firewall.apply(self.desired(), attachments)
        firewall.verify(port_ids)

    @rule(n=NUMBERS, refers_to=NUMBERS, members=MEMBERS)
    def set_group(self, n: int, refers_to: int, members: list[dict[str, str]]) -> None:
        self.revision += 1
        made = group(n, *rules_to(refers_to), members=members, revision=self.revision)
        self.groups[made.id] = made
        # As the server does: groups that refer to the members get a new revision.
        for known in list(self.groups.values()):
            raised = {**vars(known), "revision": self.revision}
            self.groups[known.id] = SecurityGroupSpec(**raised)
        affected = sorted(self.firewall.affected_by([made.id]) & self.ports.keys())
        self.apply(self.firewall, affected)
        self.firewall.commit(affected)

    @rule(
        n=NUMBERS, in_groups=st.sets(NUMBERS, max_size=2), pairs=PAIRS, vlan=st.integers(1, 2),
        mode=st.sampled_from(["filtered", "filtered", "free", "down"]), replug=st.booleans(),
        fate=st.sampled_from(["commit", "commit", "revert", "refused"]),
        refused=st.sampled_from(["table=0,", "table=71,", "table=82,"]),
    )  # fmt: skip
    def wire(
        self, *, n: int, in_groups: set[int], pairs: list[dict[str, str]], vlan: int, mode: str,
        replug: bool, fate: str, refused: str,
    ) -> None:  # fmt: skip
        groups = [self.groups[numbered_id(2, number)] for number in in_groups]
        made = port(n, *groups, allowed_address_pairs=pairs, admin_state_up=mode != "down",
                    port_security_enabled=mode != "free")  # fmt: skip
        before, tables = self.ports.get(made.id), dict(self.tables.flows)
        self.ports[made.id] = (made, n + 10 * replug, vlan)
        if fate == "refused":
            self.tables.refuse = f"{refused}priority="
            sent = len(self.tables.bundles)
            try:
                self.apply(self.firewall, [made.id])
            except PortErrors as exc:
                assert set(exc.errors) == {made.id}  # noqa: PT017
                assert self.tables.flows == tables
                self.restore(made.id, before)
            else:
                lines = [line for bundle in self.tables.bundles[sent:] for line in bundle]
                assert not any(f",{refused}" in line for line in lines), "refused without an error"
                self.firewall.commit([made.id])
            finally:
                self.tables.refuse = None
            return
        self.apply(self.firewall, [made.id])
        if fate == "revert" and self.swept:
            self.firewall.revert([made.id])
            self.restore(made.id, before)
        else:
            self.firewall.commit([made.id])

    def restore(self, port_id: str, before: tuple[PortSpec, int, int] | None) -> None:
        if before is None:
            del self.ports[port_id]
        else:
            self.ports[port_id] = before

    @precondition(lambda self: self.ports)
    @rule(data=st.data())
    def unwire(self, data: st.DataObject) -> None:
        port_id = data.draw(st.sampled_from(sorted(self.ports)))
        if self.swept:
            self.firewall.remove([port_id])
            del self.ports[port_id]

    @rule()
    def restart(self) -> None:
        before = dict(self.tables.flows)
        self.firewall = Firewall(self.tables)  # type: ignore[arg-type]
        self.firewall.start()
        assert self.tables.flows == before
        self.swept = False

    @rule()
    def resync(self) -> None:
        """In two batches, as many ports would be."""
        for batch in (sorted(self.ports)[::2], sorted(self.ports)[1::2]):
            self.apply(self.firewall, batch)
            self.firewall.commit(batch)
        self.firewall.sweep(set(self.ports))
        self.swept = True

    @invariant()
    def tables_hold_what_is_desired(self) -> None:
        if not self.swept:
            return
        fresh = Tables()
        firewall = Firewall(fresh)  # type: ignore[arg-type]
        firewall.start()
        self.apply(firewall, sorted(self.ports))
        assert comparable(self.tables) == comparable(fresh)

    def teardown(self) -> None:
        self.resync()
        self.firewall.remove(list(self.ports))
        empty = Tables()
        Firewall(empty).start()  # type: ignore[arg-type]
        assert self.tables.flows == empty.flows


def comparable(tables: Tables) -> dict[str, str]:
    """Flows without what depends on their history: generation, id and priority of conjunctions."""
    priorities = {
        int(match[1])
        for key in tables.flows
        if (match := re.search(r"priority=(6\d|7[0-3]),", key))
    }
    flows = {}
    for key, (_, actions) in tables.flows.items():
        plain = key
        if "table=72" in key or "table=82" in key:
            for priority in priorities:
                plain = plain.replace(f"priority={priority},", "priority=*,")
        ids = re.findall(r"conjunction\((\d+),", actions)
        if "conj_id=" in key:
            plain = f"{key[:8]} conj_id"
            flows[plain] = flows.get(plain, "") + "*"
        else:
            flows[plain] = f"{len(ids)} conjunctions" if ids else actions
    return flows


Events.TestCase.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
TestAnyCourseOfEvents = pytest.mark.filterwarnings("error")(Events.TestCase)
