"""Our checks in ``neutron-status upgrade check``: entry point ``neutron.status.upgrade.checks``."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from neutron.conf.plugins.ml2 import config as ml2_conf
from neutron_lib.db import api
from neutron_lib.utils import upgrade_checks
from oslo_config import cfg
from oslo_upgradecheck.upgradecheck import Code, Result

from agent_flows import conf as options
from agent_flows.neutron.server import migration

_SCRIPTS = Path(migration.__file__).parent / "alembic_migrations"
_NAME = "agent_flows"


def loaded(service_plugins: Collection[str], mechanism_drivers: Sequence[str]) -> Result:
    """Neutron's server loads both, the plugin and the driver, or neither of them."""
    plugin, driver = _NAME in service_plugins, _NAME in mechanism_drivers
    if plugin and driver:
        return Result(Code.SUCCESS)
    if plugin:
        return Result(
            Code.FAILURE,
            "service_plugins has agent_flows, [ml2] mechanism_drivers has not: ports would become "
            "ACTIVE without a proof. Add it there (and give ml2_conf.ini with --config-file).",
        )
    if driver:
        return Result(
            Code.FAILURE,
            "[ml2] mechanism_drivers has agent_flows, service_plugins has not: reports would not "
            "be received, and ports would stay DOWN. Add it there.",
        )
    return Result(Code.SUCCESS, "agent_flows is not in Neutron's configuration.")


def migrated(current: Collection[str], wanted: Collection[str]) -> Result:
    """Every migration of ours was applied."""
    if missing := sorted(set(wanted) - set(current)):
        return Result(
            Code.FAILURE,
            f"{', '.join(missing)} was not applied: run neutron-db-manage --subproject "
            "agent_flows upgrade heads.",
        )
    return Result(Code.SUCCESS)


def known(sections: options.Sections) -> Result:
    """No option in our sections that this release does not have."""
    if gone := options.unknown(sections):
        return Result(Code.WARNING, f"This release does not have {', '.join(gone)}: remove them.")
    return Result(Code.SUCCESS)


class AgentFlowsChecks(upgrade_checks.BaseChecks):  # type: ignore[misc]
    """Neutron calls each check with its own checker, which they do not need."""

    def get_checks(self) -> list[tuple[str, Callable[[Any], Result]]]:
        return [
            ("agent_flows: plugin and mechanism driver", self._loaded),
            ("agent_flows: migrations", self._migrated),
            ("agent_flows: options", self._known),
        ]

    @staticmethod
    def _loaded(_: Any) -> Result:
        ml2_conf.register_ml2_plugin_opts()
        return loaded(cfg.CONF.service_plugins, cfg.CONF.ml2.mechanism_drivers)

    @staticmethod
    def _migrated(_: Any) -> Result:
        engine = api.get_context_manager().writer.get_engine()
        with engine.connect() as connection:
            tables = sa.inspect(connection).get_table_names()
            if migration.VERSION_TABLE not in tables and "alembic_version" not in tables:
                return Result(Code.FAILURE, "The database has no tables of Neutron.")
            context = MigrationContext.configure(
                connection, opts={"version_table": migration.VERSION_TABLE}
            )
            current = context.get_current_heads()
        return migrated(current, ScriptDirectory(str(_SCRIPTS)).get_heads())

    @staticmethod
    def _known(_: Any) -> Result:
        return known(options.in_files(cfg.CONF))
