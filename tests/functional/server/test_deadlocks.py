"""Another client of the database locks rows in the other order, and the database ends the server's
transaction: the message of reports is taken again."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from agent_flows.server.core.models import Agent, Attempt, table_of
from agent_flows.server.standalone.models import Port
from lab.process import wait_until
from lab.server_parts import FakeAgent, Server

SECONDS = 30
# Seconds. InnoDB answers from a cache that it renews only if nobody has read it for 0.1 s
# (trx0i_s.cc).
LOOKS_AGAIN = 0.2
WAITING = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'",
    "mysql": "SELECT count(*) FROM information_schema.innodb_lock_waits",
}
BALLAST = sa.Table("ballast", sa.MetaData(), sa.Column("number", sa.Integer))
AGENTS, PORTS = table_of(Agent), table_of(Port)


@pytest.fixture(params=["postgresql", "mariadb"])
def url(request: pytest.FixtureRequest) -> str:
    """Of an empty database; one with more than one writer at a time."""
    made: str = request.getfixturevalue(request.param).new_url()
    if request.param == "mariadb":
        return made
    # It looks for a deadlock once, so long after a wait began: the server's, if the other one waits
    # by then.
    patient = sa.make_url(made).update_query_dict({"options": "-c deadlock_timeout=3s"})
    return patient.render_as_string(hide_password=False)


@pytest.mark.parametrize("reports", [1, 20])
def test_reports_of_a_transaction_that_the_database_ended_are_stored_once(
    server: Server, agent: FakeAgent, url: str, make_port: Callable[..., str], reports: int
) -> None:
    ports = [make_port() for _ in range(reports)]
    sent = [agent.report(port) for port in ports]
    engine = sa.create_engine(url)
    BALLAST.create(engine)
    with engine.connect() as other, engine.connect() as watch, ThreadPoolExecutor(1) as pool:
        # MariaDB ends the transaction that has written less.
        other.execute(sa.insert(BALLAST), [{"number": number} for number in range(1000)])
        other.execute(sa.select(PORTS).with_for_update()).all()
        taken = pool.submit(agent.send, *sent)

        def waits() -> bool:
            waiting = watch.scalar(sa.text(WAITING[engine.dialect.name]))
            watch.rollback()
            return bool(waiting)

        what = "the server waits for the port, and has the agent"
        wait_until(waits, SECONDS, what, LOOKS_AGAIN)
        # It is the other transaction that waits shorter, and has written more.
        other.execute(sa.select(AGENTS).with_for_update()).all()
        other.commit()
        assert set(taken.result(SECONDS).accepted) == {report.id for report in sent}
        kept = sorted(watch.scalars(sa.select(table_of(Attempt).c.id)))
    engine.dispose()
    assert kept == sorted(report.id for report in sent)
    assert {server.state(port) for port in ports} == {("ACTIVE", "IN_SYNC")}
