"""Publishing and relaying through PgBouncer in transaction mode, where a session keeps nothing."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from postroom.outbox import Message
from postroom.outbox.connection import Connector
from postroom.testing import ServerUnavailableError
from postroom.testing.pgbouncer import pgbouncer
from postroom.testing.postgres import Database

SETTINGS = {"batch_size": 50, "max_in_flight": 200, "upkeep_seconds": 0.05, "lease_seconds": 3}


@pytest.fixture
def pooled(workload: Any) -> Iterator[Any]:
    """The workload through a pooler with two connections to the server."""
    try:
        with pgbouncer(Database(workload.url), pool_size=2) as (_, through):
            yield replace(workload, url=through.url)
    except ServerUnavailableError as error:
        pytest.skip(str(error))


def publish(pooled: Any, count: int) -> None:
    """In turn by a SQLAlchemy session and by psycopg, each through the pooler, without prepared statements."""
    without = {"prepare_threshold": None}
    engine = sa.create_engine(Database(pooled.url).sqlalchemy_url, pool_size=1, connect_args=without)
    with psycopg.connect(pooled.url, prepare_threshold=None) as connection:
        for n in range(count):
            key = b"key-%d" % (n % 7)
            pooled.sent[key] += 1
            message = Message(topic=pooled.topic, key=key, payload=b"%d" % pooled.sent[key], type="n")
            if n % 2:
                with connection.transaction():
                    pooled.outbox.publish(connection, message)
            else:
                with Session(engine) as session, session.begin():
                    session.execute(sa.text("SELECT 1"))
                    pooled.outbox.publish(session, message)
    engine.dispose()


def test_two_relays_behind_a_pooler_lose_nothing_double_nothing_and_keep_order(
    workload: Any, pooled: Any, steps: Any, relays: Any, eventually: Any
) -> None:
    both = steps, type(steps)()
    publish(pooled, 200)
    for seen in both:
        relays(pooled, observer=seen, **SETTINGS)
    publish(pooled, 200)
    eventually(lambda: all(shards(seen) == 8 for seen in both), "half each")
    before = [len(seen.of("settled")) for seen in both]
    publish(pooled, 200)
    eventually(lambda: workload.unsettled() == 0, "all is settled")

    assert all(len(seen.of("settled")) > count for seen, count in zip(both, before, strict=True))
    assert pooled.check(duplicates=0) == 0
    # Older ones know no prepared statements: each of the three connections of a relay learns that once.
    paused = [str(facts["error"]) for seen in both for facts in seen.of("paused")]
    assert all("prepared statements" in told for told in paused), paused
    assert len(paused) <= 2 * 3
    assert not any(seen.of("fenced") or seen.of("parked") for seen in both)


def shards(steps: Any) -> int:
    return len(steps.of("claimed")[-1]["shards"]) if steps.of("claimed") else 0


def test_the_names_of_prepared_statements_are_nobody_elses(workload: Any) -> None:
    """Behind a pooler another client's statement of the same name would be run in place of ours."""
    names: list[str] = []
    for _ in range(2):
        connector = Connector(workload.url, "test", 10.0)
        for _ in range(5):
            with connector.transaction() as connection:
                found = connection.execute("SELECT name FROM pg_prepared_statements").fetchall()
        names += [row[0] for row in found]
        connector.close()

    assert len(names) >= 2
    assert len(set(names)) == len(names)
    assert "_pg3_0" not in names, "another program's first one"
