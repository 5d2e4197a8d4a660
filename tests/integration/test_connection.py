"""Questions: queries that PostgreSQL answers while something else is done."""

from collections.abc import Iterator

import pytest

from postroom.messaging.errors import DatabaseUnavailable, SchemaMissing
from postroom.outbox.connection import Connector
from postroom.testing.postgres import Database

NUMBERS = "SELECT n::int FROM generate_series(1, %(count)s::int) n WHERE n = ANY (%(some)s) OR %(text)s::text = 'all'"
NO_SETTINGS = "SELECT 1"


@pytest.fixture
def connector(postroom_postgres: Database) -> Iterator[Connector]:
    made = Connector(postroom_postgres.url, "test", 10.0)
    yield made
    made.close()


def ask(connector: Connector, count: int, some: list[int], text: str | None = None) -> None:
    connector.ask(NO_SETTINGS, NUMBERS, {"count": count, "some": some, "text": text})


def ask_and_answer(connector: Connector) -> None:
    ask(connector, 3, [1])
    connector.answer(tuple)


def test_an_answer_waits_while_the_connection_does_something_else(connector: Connector) -> None:
    ask(connector, 5, [2, 4, 9])
    with connector.transaction() as connection:
        assert connection.execute("SELECT 7").fetchone() == (7,)

    assert connector.answer(tuple) == [(2,), (4,)]


def test_what_was_asked_before_is_forgotten(connector: Connector) -> None:
    ask(connector, 5, [1])
    ask(connector, 3, [], "all")

    assert connector.answer(list) == [[1], [2], [3]]


def test_a_question_that_fails_leaves_no_transaction_open(connector: Connector) -> None:
    connector.ask(NO_SETTINGS, "SELECT * FROM nowhere", {})
    with pytest.raises(SchemaMissing):
        connector.answer(tuple)

    ask(connector, 3, [3])
    assert connector.answer(tuple) == [(3,)]
    with connector.autocommit() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_query_is_prepared_once(connector: Connector) -> None:
    for _ in range(4):
        ask(connector, 3, [3])
        connector.answer(tuple)
    with connector.autocommit() as connection:
        names = connection.execute("SELECT name FROM pg_prepared_statements").fetchall()

    assert len(names) == 2, "the settings and the query"


def test_it_only_reads(connector: Connector) -> None:
    connector.ask(NO_SETTINGS, "CREATE TABLE written (n int)", {})

    with pytest.raises(Exception, match="read-only"):
        connector.answer(tuple)


def test_a_lost_connection_is_told_and_the_next_question_connects_anew(
    postroom_postgres: Database, connector: Connector
) -> None:
    ask(connector, 3, [3])
    with connector.autocommit() as connection:
        pid = connection.info.backend_pid
    other = Connector(postroom_postgres.url, "other", 10.0)
    with other.autocommit() as connection:
        connection.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    other.close()

    assert connector.answer(tuple) == [(3,)], "it was here already"
    with pytest.raises(DatabaseUnavailable):
        ask_and_answer(connector)
    ask(connector, 3, [2])
    assert connector.answer(tuple) == [(2,)]
