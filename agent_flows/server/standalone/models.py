"""The standalone server's own tables: the desired state, and what is known of each port."""

import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from agent_flows.server.core import models
from agent_flows.server.core.models import OPTIONS, PortRow, Uuid

Name = sa.String(255)
Json = sa.JSON()


class Base(models.Base):
    """Apart from the core's tables, which Neutron's database holds too."""

    __abstract__ = True
    metadata = sa.MetaData(naming_convention=models.Base.metadata.naming_convention)


class Network(Base):
    """``segment`` names the piece of a physical network it occupies, which only one may."""

    __tablename__ = "networks"

    id: Mapped[str] = mapped_column(Uuid, primary_key=True)
    name: Mapped[str] = mapped_column(Name)
    network_type: Mapped[str] = mapped_column(sa.String(16))
    segmentation_id: Mapped[int | None]
    physical_network: Mapped[str | None] = mapped_column(sa.String(64))
    mtu: Mapped[int]
    segment: Mapped[str | None] = mapped_column(sa.String(96), unique=True)


class SecurityGroup(Base):
    """``revision`` rises when something a port in this group depends on changes:
    ``rules_revision`` is the one at which that last was the group's own rules or ``stateful``.

    ``members_revision`` rises when the addresses of its members change.
    """

    __tablename__ = "security_groups"

    id: Mapped[str] = mapped_column(Uuid, primary_key=True)
    name: Mapped[str] = mapped_column(Name)
    stateful: Mapped[bool]
    revision: Mapped[int]
    rules_revision: Mapped[int] = mapped_column(sa.BigInteger(), server_default="0")
    members_revision: Mapped[int] = mapped_column(sa.BigInteger(), server_default="1")
    rules: Mapped[list["SecurityGroupRule"]] = relationship(
        order_by="SecurityGroupRule.position",
        cascade="all, delete-orphan",
        foreign_keys="SecurityGroupRule.security_group_id",
        lazy="selectin",
    )


class AddressGroup(Base):
    __tablename__ = "address_groups"

    id: Mapped[str] = mapped_column(Uuid, primary_key=True)
    name: Mapped[str] = mapped_column(Name)
    addresses: Mapped[list[str]] = mapped_column(Json)
    revision: Mapped[int] = mapped_column(sa.BigInteger(), server_default="1")


class SecurityGroupHost(Base):
    """A host with ports that depend on the security group, and what it last reported of it.

    The report was about ``revision``, had this ``sequence``, and ``failed`` or not; 0 without one.
    ``behind_since``: since then, or since its last progress, the host may have ports for which an
    older revision was proven than the group's; None if there are none. ``outcome_since`` is since
    when its reports of the group have failed, or have not; None if they never failed.
    """

    __tablename__ = "security_group_hosts"

    security_group_id: Mapped[str] = mapped_column(
        Uuid, sa.ForeignKey("security_groups.id", ondelete="CASCADE"), primary_key=True
    )
    host: Mapped[str] = mapped_column(models.Host, primary_key=True, index=True)
    revision: Mapped[int]
    sequence: Mapped[int]
    failed: Mapped[bool]
    behind_since: Mapped[datetime.datetime | None] = mapped_column(index=True)
    outcome_since: Mapped[datetime.datetime | None]


MEMBER_CHANGES_KEPT = 1000
"""An agent that lacks more than so many changes of a group's members reads all of them."""


class MemberChange(Base):
    """The member whose addresses changed at this ``members_revision`` of the security group."""

    __tablename__ = "member_changes"

    security_group_id: Mapped[str] = mapped_column(
        Uuid, sa.ForeignKey("security_groups.id", ondelete="CASCADE"), primary_key=True
    )
    revision: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    port_id: Mapped[str] = mapped_column(Uuid)


class SecurityGroupRule(Base):
    __tablename__ = "security_group_rules"

    security_group_id: Mapped[str] = mapped_column(
        Uuid, sa.ForeignKey("security_groups.id", ondelete="CASCADE"), primary_key=True
    )
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    direction: Mapped[str] = mapped_column(sa.String(8))
    ethertype: Mapped[str] = mapped_column(sa.String(8))
    protocol: Mapped[int | None]
    port_range_min: Mapped[int | None]
    port_range_max: Mapped[int | None]
    source_port_range_min: Mapped[int | None]
    source_port_range_max: Mapped[int | None]
    remote_ip_prefix: Mapped[str | None] = mapped_column(sa.String(64))
    remote_group_id: Mapped[str | None] = mapped_column(
        Uuid, sa.ForeignKey("security_groups.id"), index=True
    )
    remote_address_group_id: Mapped[str | None] = mapped_column(
        Uuid, sa.ForeignKey("address_groups.id"), index=True
    )


class Port(PortRow, Base):
    """A port: what it should be, and what is known to have become of it."""

    __tablename__ = "ports"
    __table_args__ = (
        sa.UniqueConstraint("network_id", "mac_address"),
        sa.Index(None, "host", "sync_state"),
        sa.Index(None, "sync_state", "sync_since"),
        OPTIONS,
    )

    id: Mapped[str] = mapped_column(Uuid, primary_key=True)
    name: Mapped[str] = mapped_column(Name)
    network_id: Mapped[str] = mapped_column(Uuid, sa.ForeignKey("networks.id"))
    mac_address: Mapped[str] = mapped_column(sa.String(17))
    allowed_address_pairs: Mapped[list[dict[str, Any]]] = mapped_column(Json)
    port_security_enabled: Mapped[bool]
    device_owner: Mapped[str] = mapped_column(Name)
    revision_number: Mapped[int]

    fixed_ips: Mapped[list["FixedIp"]] = relationship(
        order_by="FixedIp.position", cascade="all, delete-orphan", lazy="selectin"
    )
    memberships: Mapped[list["Membership"]] = relationship(
        order_by="Membership.position", cascade="all, delete-orphan", lazy="selectin"
    )

    @property
    def addresses(self) -> list[str]:
        return [each.ip_address for each in self.fixed_ips]

    @property
    def security_groups(self) -> list[str]:
        return [each.security_group_id for each in self.memberships]


class FixedIp(Base):
    __tablename__ = "fixed_ips"

    network_id: Mapped[str] = mapped_column(Uuid, sa.ForeignKey("networks.id"), primary_key=True)
    ip_address: Mapped[str] = mapped_column(sa.String(45), primary_key=True)
    port_id: Mapped[str] = mapped_column(
        Uuid, sa.ForeignKey("ports.id", ondelete="CASCADE"), index=True
    )
    position: Mapped[int]


class Membership(Base):
    """A port is in a security group.

    ``proven_revision`` is the group's revision at which the port's own last report proved it.
    """

    __tablename__ = "port_security_groups"

    port_id: Mapped[str] = mapped_column(
        Uuid, sa.ForeignKey("ports.id", ondelete="CASCADE"), primary_key=True
    )
    security_group_id: Mapped[str] = mapped_column(
        Uuid, sa.ForeignKey("security_groups.id"), primary_key=True, index=True
    )
    position: Mapped[int]
    proven_revision: Mapped[int | None]
