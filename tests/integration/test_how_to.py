"""The how-to pages: their examples are programs, and do what the pages say."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import django
import httpx
import psycopg
import pytest
import sqlalchemy as sa
from django.conf import settings
from sqlalchemy.orm import Session

from postroom.messaging.errors import NotInTransaction
from postroom.messaging.records import OutgoingRecord
from postroom.outbox import Message, schema
from postroom.testing.postgres import Database

_EXAMPLE = re.compile(r"<!-- example: (\S+)\.py -->\n```python\n(.*?)```", re.DOTALL)


@pytest.fixture
def database(postroom_postgres: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[psycopg.Connection[Any]]:
    """With Postroom's tables; the examples find it by DATABASE_URL."""
    schema.upgrade(postroom_postgres.url)
    monkeypatch.setenv("DATABASE_URL", postroom_postgres.sqlalchemy_url)
    with psycopg.connect(postroom_postgres.url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def page(rooms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], list[Any]]]:
    """``page("flask")``: the examples of a how-to, as modules, in their order."""
    monkeypatch.syspath_prepend(tmp_path)
    names: list[str] = []

    def load(name: str) -> list[Any]:
        examples = _EXAMPLE.findall((rooms / "docs" / "how-to" / f"{name}.md").read_text())
        for module, code in examples:
            (tmp_path / f"{module}.py").write_text(code)
            names.append(module)
        return [import_module(module) for module, _ in examples]

    yield load
    for name in names:
        module = sys.modules.pop(name, None)
        engine = getattr(module, "engine", None)
        if isinstance(engine, sa.Engine):
            engine.dispose()


def published(database: psycopg.Connection[Any]) -> list[tuple[str, Any]]:
    """Type and payload of each message, in the order of the log."""
    rows = database.execute("SELECT type, payload FROM postroom.outbox ORDER BY position").fetchall()
    return [(type_, json.loads(payload)) for type_, payload in rows]


def count(database: psycopg.Connection[Any], table: str) -> int:
    [row] = database.execute(f"SELECT count(*) FROM {table}".encode()).fetchall()
    return int(row[0])


def test_sqlalchemy(database: psycopg.Connection[Any], page: Callable[[str], list[Any]]) -> None:
    orm, aio, core = page("sqlalchemy")
    orm.Base.metadata.create_all(orm.engine)

    first = orm.place_order(100)
    orm.pay(first)
    core.pay(first)

    async def asynchronous() -> Any:
        second = await aio.place_order(200)
        async with aio.engine.begin() as connection:
            await core.pay_async(connection, second)
        await aio.engine.dispose()
        return second

    second = asyncio.run(asynchronous())

    placed, paid = "shop.order.placed", "shop.order.paid"
    assert [(type_, payload["order_id"]) for type_, payload in published(database)] == [
        *((type_, str(first)) for type_ in (placed, paid, paid)),
        *((type_, str(second)) for type_ in (placed, paid)),
    ]
    assert count(database, "shop_order") == 2
    outside = orm.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    with outside, pytest.raises(NotInTransaction):
        orm.outbox.publish(outside, orm.OrderPaid(order_id=first))


def test_fastapi(database: psycopg.Connection[Any], page: Callable[[str], list[Any]]) -> None:
    [api] = page("fastapi")

    async def use() -> Any:
        async with api.engine.begin() as connection:
            await connection.run_sync(api.Base.metadata.create_all)
        transport = httpx.ASGITransport(api.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            good = await client.post("/orders", json={"cents": 5})
            bad = await client.post("/orders", json={"cents": "many"})
        await api.engine.dispose()
        return good, bad

    good, bad = asyncio.run(use())
    assert (good.status_code, bad.status_code) == (201, 422)
    assert published(database) == [("shop.order.placed", {"order_id": good.json(), "cents": 5})]
    assert count(database, "api_order") == 1


def test_flask(database: psycopg.Connection[Any], page: Callable[[str], list[Any]]) -> None:
    [web] = page("flask")
    web.Base.metadata.create_all(web.engine)
    client = web.app.test_client()

    answer = client.post("/orders", json={"cents": 5})
    assert answer.status_code == 201
    with web.app.app_context():
        web.outbox.publish(web.session, web.OrderPlaced(order_id=answer.get_json()["id"], cents=6))
    client.post("/orders", json={"cents": 7})
    assert [payload["cents"] for _, payload in published(database)] == [5, 7], "what was not committed is forgotten"
    assert count(database, "web_order") == 2


def test_django(
    database: psycopg.Connection[Any], page: Callable[[str], list[Any]], postroom_postgres: Database, tmp_path: Path
) -> None:
    url = sa.make_url(postroom_postgres.url)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "models.py").write_text(
        "from django.db import models\n\nclass Order(models.Model):\n"
        "    id = models.UUIDField(primary_key=True)\n    cents = models.IntegerField()\n"
    )
    settings.configure(
        INSTALLED_APPS=["shop"],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": url.database,
                "USER": url.username,
                "PASSWORD": url.password,
                "HOST": url.host,
                "PORT": str(url.port or ""),
            }
        },
    )
    django.setup()
    tables, services = page("django")
    transaction, connection = services.transaction, services.connection
    try:
        [operation] = tables.Migration.operations
        with connection.schema_editor(atomic=tables.Migration.atomic) as editor:
            operation.database_backwards("shop", editor, None, None)
            operation.database_forwards("shop", editor, None, None)
            editor.create_model(services.Order)
        assert schema.upgrade(postroom_postgres.url) == [], "they are all there"

        order = services.place_order(5)
        services.reprice(order, 6)
        with pytest.raises(NotInTransaction):
            services.outbox.publish(connection.connection, services.OrderPlaced(order_id=order, cents=7))
        with transaction.atomic():
            point = transaction.savepoint()
            services.place_order(8)
            transaction.savepoint_rollback(point)
            services.place_order(9)

        assert [payload["cents"] for _, payload in published(database)] == [5, 6, 9]
        assert services.Order.objects.count() == 2
    finally:
        connection.close()
        for name in ("shop", "shop.models"):
            sys.modules.pop(name, None)


def test_psycopg(
    database: psycopg.Connection[Any], page: Callable[[str], list[Any]], postroom_postgres: Database
) -> None:
    [plain] = page("psycopg")
    database.execute("CREATE TABLE plain_order (id uuid, cents integer)")

    plain.place_order(database, 5)

    async def asynchronous() -> None:
        async with await psycopg.AsyncConnection.connect(postroom_postgres.url) as connection:
            await plain.place_order_async(connection, 6)

    asyncio.run(asynchronous())
    assert [payload["cents"] for _, payload in published(database)] == [5, 6]
    assert count(database, "plain_order") == 2
    with pytest.raises(NotInTransaction):
        plain.outbox.publish(database, plain.placed(plain.uuid4(), 7))


def test_existing_topics(page: Callable[[str], list[Any]], ledger: Any, eventually: Callable[..., None]) -> None:
    [legacy] = page("existing-topics")
    ledger.execute("CREATE TABLE customer (number integer, name text)")
    ledger.put(
        OutgoingRecord("legacy-customers", b"1", b'{"no": 1, "name": "Ada"}', []),
        OutgoingRecord("legacy-customers", b"1", b"<no json>", []),
        OutgoingRecord("legacy-customers", b"1", None, []),
        OutgoingRecord("legacy-customers", b"1", b'{"no": 2, "name": "Bob"}', []),
    )
    ledger.start(legacy.inbox)
    eventually(lambda: ledger.closed() == 4, "all records are closed")
    assert ledger.query("SELECT number, name FROM customer") == [(1, "Ada"), (2, "Bob")]
    assert sorted(ledger.outcomes().values()) == [1, 3], "one is a dead letter, three are handled"


def test_sagas(
    page: Callable[[str], list[Any]],
    ledger: Any,
    workload: Any,
    relays: Callable[..., Any],
    eventually: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, orders, payments, shipments = page("sagas")
    engine = sa.create_engine(sa.make_url(ledger.url).set(drivername="postgresql+psycopg"))
    for module in (orders, payments, shipments):
        module.Base.metadata.create_all(engine)
    for topic in ("saga-orders", "saga-payments", "saga-shipments"):
        ledger.create(3, topic)

    def place(order_id: str, item: str, cents: int) -> None:
        with Session(engine) as session, session.begin():
            orders.place(session, order_id, item, cents)

    with Session(engine) as session, session.begin():
        session.add(shipments.Stock(item="book", count=1))
    place("good", "book", 1000)
    relays(workload, upkeep_seconds=0.1)
    for module in (orders, payments, shipments):
        ledger.start(module.inbox)

    def states(table: str, key: str = "order_id") -> dict[str, str]:
        return dict(ledger.query(f"SELECT {key}, state FROM saga_{table}"))

    eventually(lambda: states("order", "id")["good"] == "completed", "an order goes through")
    place("sold-out", "book", 1000)
    place("dear", "book", 200_000)
    eventually(lambda: states("order", "id")["sold-out"] == "cancelled", "what cannot be shipped is cancelled")
    eventually(lambda: states("order", "id")["dear"] == "cancelled", "what is not paid is cancelled")
    eventually(lambda: states("payment").get("sold-out") == "refunded", "and what was paid is given back")
    eventually(lambda: states("payment").get("dear") == "void", "nothing, where nothing was paid")

    monkeypatch.setattr(orders, "PATIENCE", timedelta(0))
    place("late", "nothing", 1000)
    eventually(lambda: states("order", "id")["late"] == "cancelled", "what takes too long is cancelled")
    eventually(lambda: states("payment").get("late") in {"refunded", "void"}, "and given back, if it was paid")

    assert states("payment")["good"] == "taken"
    assert ledger.query("SELECT count FROM saga_stock") == [(0,)]
    began = [str(id_) for (id_,) in ledger.query("SELECT id FROM postroom.outbox WHERE type = 'order.placed'")]
    ends = ledger.query("SELECT headers::text FROM postroom.outbox WHERE topic = 'saga-shipments'")
    assert len(ends) >= 2
    assert all(any(id_ in headers for id_ in began) for (headers,) in ends), "one story has one correlation id"
    assert set(ledger.outcomes()) == {"handled"}
    engine.dispose()


def test_a_home_made_outbox_is_left_without_losing_or_doubling(
    rooms: Path, database: psycopg.Connection[Any], page: Callable[[str], list[Any]], postroom_postgres: Database
) -> None:
    [mover] = page("leave-a-home-made-outbox")
    text = (rooms / "docs" / "how-to" / "leave-a-home-made-outbox.md").read_text()
    [table] = re.findall(r"CREATE TABLE .*?;", text, re.DOTALL)
    database.execute(table.encode())

    def old_writer(key: str, n: int) -> None:
        body = json.dumps({"key": key, "n": n})
        database.execute("INSERT INTO outgoing (topic, key, body) VALUES ('orders', %s, %s)", [key, body])

    def new_writer(connection: psycopg.Connection[Any], key: str, n: int) -> None:
        payload = json.dumps({"key": key, "n": n}).encode()
        with connection.transaction():
            mover.move_key(connection, key)
            mover.outbox.publish(connection, Message(topic="orders", key=key, payload=payload, type="orders.v1"))

    with psycopg.connect(postroom_postgres.url, autocommit=True) as connection:
        for n in (1, 2, 3):
            old_writer("a", n)
            old_writer("b", n)
        assert mover.move(connection, 2) == 2
        with connection.transaction(force_rollback=True):
            assert mover.move(connection) == 4
        assert count(database, "outgoing") == 4, "what was not committed is where it was"
        new_writer(connection, "a", 4)
        old_writer("a", 5)
        assert mover.move(connection) == 3
        assert mover.move(connection) == 0

    by_key: dict[str, list[int]] = {"a": [], "b": []}
    for _, payload in published(database):
        by_key[payload["key"]].append(payload["n"])
    assert by_key == {"a": [1, 2, 3, 4, 5], "b": [1, 2, 3]}


def test_test_your_application(rooms: Path, tmp_path: Path) -> None:
    """Its tests pass, without a server."""
    for name, code in _EXAMPLE.findall((rooms / "docs" / "how-to" / "test-your-application.md").read_text()):
        (tmp_path / f"{name}.py").write_text(code)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout


@pytest.mark.usefixtures("postroom_real_kafka")
def test_verify_says_that_everything_arrived(
    workload: Any, relays: Any, eventually: Any, page: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload.publish(50)
    relays(workload)
    eventually(lambda: workload.unsettled() == 0, "all is settled")
    monkeypatch.setenv("POSTROOM_DATABASE_URL", workload.url)
    monkeypatch.setenv("POSTROOM_KAFKA_BOOTSTRAP_SERVERS", workload.broker.bootstrap_servers)
    [arrivals] = page("verify")

    assert [(each.topic, each.arrived) for each in arrivals.found.topics] == [(workload.topic, 50)]
