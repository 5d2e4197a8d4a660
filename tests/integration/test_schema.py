"""The tables: their versions, their names, and other ways to bring them in."""

import sqlite3
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import alembic.command
import alembic.config
import psycopg
import pytest
import sqlalchemy as sa

from postroom.messaging.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    SchemaMissing,
    SchemaOutdated,
    SchemaTooNew,
)
from postroom.outbox import Message, Names, Outbox, schema
from postroom.outbox.database import open_store, parse_url
from postroom.testing.postgres import Database

OUTBOX = Outbox(source="/test")
CATALOG = """
    SELECT c.relname, c.relkind::text, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
           pg_get_expr(d.adbin, d.adrelid)
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relnamespace = 'postroom'::regnamespace ORDER BY 1, 3
"""


@pytest.fixture(params=["postgres", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'app.db'}"
    database: Database = request.getfixturevalue("postroom_postgres")
    return database.url


def set_version(url: str, version: int) -> None:
    engine = sa.create_engine(parse_url(url))
    table = Names().table("schema_version", "sqlite" if engine.dialect.name == "sqlite" else "postgres")
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DELETE FROM {table}")
        if version:
            connection.exec_driver_sql(f"INSERT INTO {table} (version) VALUES ({version})")
    engine.dispose()


def test_an_upgrade_is_done_once(url: str) -> None:
    with pytest.raises(SchemaMissing, match="postroom init"):
        schema.check(url)

    assert [step.version for step in schema.upgrade(url)] == list(range(1, schema.LATEST + 1))
    assert schema.upgrade(url) == []
    assert schema.check(url) == schema.LATEST


def test_two_upgrades_at_once_do_it_once(url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: len(schema.upgrade(url)), range(4)))

    assert sorted(done) == [0, 0, 0, schema.LATEST]


def test_tables_of_another_version_are_told_what_to_do(url: str) -> None:
    schema.upgrade(url)
    set_version(url, schema.LATEST + 1)
    with pytest.raises(SchemaTooNew, match="upgrade Postroom"):
        schema.check(url)
    with pytest.raises(SchemaTooNew, match="upgrade Postroom"):
        schema.upgrade(url)
    with pytest.raises(SchemaOutdated, match="postroom db upgrade"):
        schema.require_latest(schema.LATEST - 1 or -1)


@pytest.mark.parametrize("shards", [1, 3, 256])
def test_names_and_shards_are_settings(url: str, shards: int) -> None:
    names = Names(schema="mail", tables={"outbox": "outgoing", "relay_cursor": "position"})
    schema.upgrade(url, names, shards)
    store = open_store(url, names)
    for number in range(20):
        store.append([OUTBOX.entry(Message(topic="t", key=str(number), payload=b"1", type="x"))])
    reader = store.reader("me", 60)

    assert len(reader.claim().shards) == (1 if url.startswith("sqlite") else shards)
    assert len(reader.read(100).rows) == 20
    reader.close()
    store.close()


@pytest.mark.parametrize("bad", ["", "a b", 'x"; DROP TABLE y', "x" * 41, "1x"])
def test_names_that_are_none_are_refused(bad: str) -> None:
    with pytest.raises(ConfigurationError, match="1 to 40 letters"):
        Names(schema=bad)
    with pytest.raises(ConfigurationError, match="1 to 40 letters"):
        Names(tables={"outbox": bad})


def test_unknown_tables_and_shards_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="no table 'inbax'"):
        Names(tables={"inbax": "x"})
    with pytest.raises(ConfigurationError, match="must be 1 to 256"):
        schema.migrations("postgres", Names(), 0)


def test_the_script_makes_the_same_tables_as_the_upgrade(
    postroom_postgres: Database, request: pytest.FixtureRequest
) -> None:
    with psycopg.connect(postroom_postgres.url, autocommit=True) as connection:
        connection.execute(schema.script("postgres").encode())
        by_script = connection.execute(CATALOG.encode()).fetchall()
        connection.execute("DROP SCHEMA postroom CASCADE")
        schema.upgrade(postroom_postgres.url)
        by_upgrade = connection.execute(CATALOG.encode()).fetchall()

    assert len(by_upgrade) > 60
    assert by_script == by_upgrade


def test_the_sqlite_script_runs(tmp_path: Path) -> None:
    path = tmp_path / "script.db"
    connection = sqlite3.connect(path)
    connection.executescript(schema.script("sqlite"))
    connection.close()

    assert schema.check(f"sqlite:///{path}") == schema.LATEST


def test_the_alembic_recipe(url: str, tmp_path: Path, rooms: Path) -> None:
    """What docs/how-to/alembic.md says, done."""
    recipe = (rooms / "docs" / "how-to" / "alembic.md").read_text()
    migration = recipe.split("```python\n")[1].split("```")[0]
    folder = tmp_path / "alembic"
    (folder / "versions").mkdir(parents=True)
    (folder / "env.py").write_text(
        textwrap.dedent("""
            from alembic import context
            from sqlalchemy import create_engine

            engine = create_engine(context.config.attributes["url"])
            with engine.connect() as connection:
                context.configure(connection=connection)
                with context.begin_transaction():
                    context.run_migrations()
            engine.dispose()
        """)
    )
    (folder / "versions" / "0001_postroom.py").write_text(migration)

    alembic.command.upgrade(configuration(folder, url), "head")

    assert schema.check(url) == schema.LATEST
    alembic.command.downgrade(configuration(folder, url), "base")
    with pytest.raises(SchemaMissing):
        schema.check(url)


def configuration(folder: Path, url: str) -> alembic.config.Config:
    config = alembic.config.Config()
    config.set_main_option("script_location", str(folder))
    config.attributes["url"] = parse_url(url)
    return config


@pytest.mark.parametrize(
    ("url", "kind", "told"),
    [
        ("postgresql://u:secret@127.0.0.1:1/db", DatabaseUnavailable, "does not answer"),
        ("mysql://u:secret@localhost/db", ConfigurationError, "not on 'mysql'"),
        ("no url", ConfigurationError, "cannot be read"),
        ("", ConfigurationError, "cannot be read"),
        ("sqlite:////no/such/folder/x.db", ConfigurationError, "cannot be opened"),
    ],
)
def test_a_database_that_cannot_be_reached_is_told_in_one_sentence(url: str, kind: type[Exception], told: str) -> None:
    with pytest.raises(kind, match=told) as raised:
        schema.upgrade(url)

    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_wrong_credentials_and_databases_are_told_in_one_sentence(postroom_postgres: Database) -> None:
    url = sa.make_url(postroom_postgres.url)
    for wrong in (url.set(password="wrong-secret"), url.set(database="absent")):
        with pytest.raises(ConfigurationError, match="check the database URL") as raised:
            schema.check(wrong.render_as_string(hide_password=False))
        assert "wrong-secret" not in str(raised.value)
