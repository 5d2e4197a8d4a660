"""Each check of ``postroom doctor`` that asks the database, or nobody, in both states; rights are in test_grants.py."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.engine import make_url

from postroom.cli.checkup.examine import CHECKS, Check, examine
from postroom.cli.checkup.patient import Finding, Patient
from postroom.cli.statistics import Statistics
from postroom.dlq import Ledger
from postroom.inbox import Inbox
from postroom.inbox.desk import Desk
from postroom.messaging.clock import SystemClock
from postroom.messaging.errors import DatabaseUnavailable
from postroom.outbox import Message, Outbox
from postroom.outbox.database import open_store
from postroom.outbox.log import LogStore, Refusal, Report
from postroom.testing.postgres import Postgres

Doctor = Any  # tests/integration/conftest.py
Append = Callable[..., None]
Found = dict[tuple[str, str], Finding]


def execute(url: str, *statements: str) -> None:
    name = make_url(url).database or ""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(sql.SQL(statement).format(database=sql.Identifier(name)))


def test_a_server_that_does_not_wait_for_the_disk_breaks_the_first_promise(doctor: Doctor) -> None:
    assert doctor.look("durability")["durability", ""].state == "ok"
    execute(doctor.url, "ALTER DATABASE {database} SET synchronous_commit = off")
    found = doctor.look("durability")["durability", "synchronous_commit"]
    assert (found.state, "synchronous_commit is off (database)" in found.told) == ("problem", True)
    assert found.todo == "ALTER DATABASE … RESET synchronous_commit;"


def test_another_roles_setting_is_told(doctor: Doctor) -> None:
    role = "hasty_" + (make_url(doctor.url).database or "")
    execute(
        doctor.url, f"CREATE ROLE {role}", f"ALTER ROLE {role} IN DATABASE {{database}} SET synchronous_commit = off"
    )
    try:
        found = doctor.look("durability")
        assert found["durability", f"role {role}"].state == "warning"
        assert found["durability", ""].state == "ok", "it is not ours"
    finally:
        execute(doctor.url, f"DROP ROLE {role}")


def test_settings_of_sessions_that_are_in_the_way(doctor: Doctor) -> None:
    assert doctor.look("sessions") == {}
    execute(
        doctor.url,
        "ALTER DATABASE {database} SET default_transaction_isolation = serializable",
        "ALTER DATABASE {database} SET default_transaction_read_only = on",
        "ALTER DATABASE {database} SET idle_in_transaction_session_timeout = '2s'",
    )
    found = {subject: each.state for (_, subject), each in doctor.look("sessions").items()}
    assert found == {
        "isolation": "warning",
        "read only": "problem",
        "idle_in_transaction_session_timeout": "warning",
    }


def test_versions_are_told_and_one_too_old_is_a_problem(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.look("versions")["versions", "PostgreSQL"].state == "ok"
    monkeypatch.setattr("postroom.cli.checkup.database._OLDEST_POSTGRES", 99)
    assert doctor.look("versions")["versions", "PostgreSQL"].state == "problem"


def test_a_library_that_is_slow_is_told(on_sqlite: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    found = on_sqlite.look("versions")
    assert {found["versions", name].state for name in ("psycopg", "kafka-python")} == {"ok"}
    monkeypatch.setattr("psycopg.pq.__impl__", "python")
    monkeypatch.setattr("postroom.cli.checkup.program.find_spec", lambda _: None)
    found = on_sqlite.look("versions")
    assert {found["versions", name].state for name in ("psycopg", "kafka-python")} == {"warning"}


def test_transactions_that_are_forgotten_are_named_and_never_their_queries(
    doctor: Doctor, store: LogStore, eventually: Callable[..., None]
) -> None:
    assert doctor.look("transaction")["transaction", ""].state == "ok"

    def look() -> Found:
        found: Found = doctor.look("transaction", relay__transaction_warning_seconds=1)
        return found

    with (
        psycopg.connect(doctor.url, application_name="a forgotten shell") as reading,
        psycopg.connect(doctor.url) as writing,
    ):
        reading.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reading.execute("SELECT 'secret'")
        Outbox(source="/test").publish(writing, Message(topic="orders", key=b"secret", payload=b"1", type="n"))
        places = [("transaction", f"pid {each.info.backend_pid}") for each in (reading, writing)]
        found: Found = {}

        def both() -> bool:
            found.update(look())
            return found.keys() >= set(places)

        eventually(both, "both transactions are told")
        read, wrote = (found[place] for place in places)
        assert (read.state, wrote.state) == ("warning", "problem")
        assert "a forgotten shell" in read.told
        assert "idle in transaction" in read.told
        assert "vacuum" in read.told
        assert "the messages that it wrote wait for it" in wrote.told
        assert f"pg_terminate_backend({reading.info.backend_pid})" in read.todo
        assert "secret" not in str(found)
    assert look()["transaction", ""].state == "ok"


def test_a_prepared_transaction_that_was_forgotten_is_named(doctor: Doctor, eventually: Callable[..., None]) -> None:
    gid = "order-" + (make_url(doctor.url).database or "")
    with psycopg.connect(doctor.url, autocommit=True) as connection:
        for statement in ("BEGIN", "CREATE TABLE t ()", f"PREPARE TRANSACTION '{gid}'"):
            connection.execute(statement.encode())
        found: list[Found] = []

        def told() -> bool:
            found.append(doctor.look("transaction", relay__transaction_warning_seconds=1))
            return ("transaction", gid) in found[-1]

        eventually(told, "the prepared transaction is told")
        assert found[-1]["transaction", gid].state == "warning"
        connection.execute(f"ROLLBACK PREPARED '{gid}'".encode())
    assert ("transaction", gid) not in doctor.look("transaction", relay__transaction_warning_seconds=1)


def test_a_replication_slot_that_nobody_reads_is_told(doctor: Doctor) -> None:
    name = "left_" + (make_url(doctor.url).database or "")
    assert ("slot", name) not in doctor.look("slot")
    execute(doctor.url, f"SELECT pg_create_logical_replication_slot('{name}', 'test_decoding')")
    found = doctor.look("slot")["slot", name]
    assert (found.state, "nobody reads it" in found.told, "vacuum waits" in found.told) == ("warning", True, True)
    assert f"pg_drop_replication_slot('{name}')" in found.todo
    execute(doctor.url, f"SELECT pg_drop_replication_slot('{name}')")


NUMBERS: list[tuple[str, list[Any], tuple[str, str], str]] = [
    ("wraparound", [(150_000_000,)], ("wraparound", ""), "ok"),
    ("wraparound", [(1_200_000_000,)], ("wraparound", ""), "warning"),
    ("wraparound", [(1_900_000_000,)], ("wraparound", ""), "problem"),
    ("slots", [("s", True, "reserved", 5e6, False)], ("slot", "s"), "ok"),
    ("slots", [("s", True, "extended", 20e9, False)], ("slot", "s"), "warning"),
    ("slots", [("s", False, "extended", 2e9, False)], ("slot", "s"), "problem"),
    ("slots", [("s", False, "lost", None, False)], ("slot", "s"), "warning"),
    ("server", [(150_000, "15.0", True, "me")], ("database", "primary"), "problem"),
    ("other_cluster", [(16,)], ("relay", "cursor"), "problem"),
]


def test_what_no_test_can_bring_about_is_judged_by_its_numbers(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = Patient.rows
    for query, rows, place, state in NUMBERS:

        def answer(self: Patient, name: str, *args: Any, of: str = query, told: Any = rows, **named: Any) -> Any:
            return told if name == of else ask(self, name, *args, **named)

        monkeypatch.setattr(Patient, "rows", answer)
        assert doctor.look("wraparound", "slot", "versions", "relay")[place].state == state, (query, rows)


class Skewed(SystemClock):
    def __init__(self, seconds: float) -> None:
        self._by = timedelta(seconds=seconds)

    def now(self) -> datetime:
        return super().now() + self._by


def test_a_clock_that_is_off_is_told_with_what_hangs_on_it(doctor: Doctor) -> None:
    for seconds, state in ((0, "ok"), (-3, "warning"), (3, "warning"), (60, "problem")):
        patient = doctor.patient()
        patient.clock = Skewed(seconds)
        [found] = examine(patient, [check for check in CHECKS if check.name == "clock"])
        assert found.state == state, (seconds, found)
        assert seconds == 0 or ("ahead of" in found.told) == (seconds > 0)
        assert seconds == 0 or "leases are not" in found.told


def test_a_relay_that_is_missing_stuck_or_paused_is_told(doctor: Doctor, store: LogStore, append: Append) -> None:
    assert doctor.look("relay")["relay", ""].state == "warning"
    append("orders", b"k", b"l")
    found = doctor.look("backlog")["backlog", ""]
    assert (found.state, "no relay is running" in found.told) == ("problem", True)

    reader = store.reader("here:1:a", 600)
    reader.claim()
    found_all = doctor.look("relay", "backlog")
    assert {each.state for each in found_all.values()} == {"ok"}, "it has just begun"
    execute(
        doctor.url,
        "UPDATE postroom.relay_cursor SET settled_at = now() - interval '5 minutes'",
        "ALTER TABLE postroom.outbox DISABLE TRIGGER USER",
        "UPDATE postroom.outbox SET created_at = now() - interval '5 minutes'",
    )
    stuck = doctor.look("backlog")["backlog", ""]
    assert (stuck.state, "nothing was settled for 5m though a relay says" in stuck.told) == ("problem", True)

    store.pause("orders", "prices are wrong", "ann")
    paused = doctor.look("backlog")["backlog", "orders"]
    assert (paused.state, "by ann: prices are wrong" in paused.told) == ("warning", True)
    reader.claim(Report(able=False, state="unavailable", detail="Kafka does not answer."))
    assert doctor.look("relay")["relay", "here:1:a"].state == "warning"
    reader.release([0, 1])
    assert doctor.look("relay")["relay", "shards"].state == "problem"
    reader.close()


def test_messages_that_kafka_refused_are_told(doctor: Doctor, store: LogStore, append: Append) -> None:
    assert doctor.look("parked") == {}
    append("orders", b"k", b"k")
    reader = store.reader("here:1:a", 60)
    reader.claim()
    batch = reader.read(10)
    reader.settle([batch], [Refusal(batch.rows[0], "too large"), Refusal(batch.rows[1], None)])
    reader.close()
    found = doctor.look("parked")["parked", "orders"]
    assert (found.state, "refused 1 message, and 1 of their keys" in found.told) == ("problem", True)


def test_a_handler_that_an_operator_paused_is_told(doctor: Doctor) -> None:
    assert doctor.look("inbox") == {}
    with closing(Desk(doctor.url)) as desk:
        desk.pause("billing", "topic:orders", "a bad price", "ann")
    found = doctor.look("inbox")["inbox", "billing"]
    assert (found.state, "by ann: a bad price" in found.told) == ("warning", True)
    assert found.todo.endswith("postroom inbox resume --group billing --topic orders")


def test_several_relays_on_sqlite_are_told(on_sqlite: Doctor) -> None:
    with closing(open_store(on_sqlite.url)) as store:
        store.reader("here:1:a", 600).claim()
        assert ("relay", "SQLite") not in on_sqlite.look("relay")
        store.reader("here:2:b", 600).claim()
        assert on_sqlite.look("relay")["relay", "SQLite"].state == "warning"
        store.reader("there:1:c", 600).claim()
        found = on_sqlite.look("relay")["relay", "SQLite"]
        assert (found.state, "2 machines" in found.told) == ("problem", True)


@pytest.mark.parametrize("kind", ["doctor", "on_sqlite"])
def test_a_ledger_that_outlives_the_inbox_is_told(kind: str, request: pytest.FixtureRequest) -> None:
    doctor = request.getfixturevalue(kind)
    ledger = Ledger(doctor.url)
    with ledger.changing() as work:
        for number, days in enumerate((1, 40)):
            made = work.connection.execute(
                ledger.tables.fact.insert().values(
                    dead_letter_topic="t.dlq",
                    partition=0,
                    offset=number,
                    written_at=datetime.now(UTC),
                    family="postroom",
                    message_id=str(number),
                    inbox_id=str(number),
                    consumer_group="billing",
                    failed_at=datetime.now(UTC),
                    fingerprint="f",
                    order_partition=0,
                    order_offset=number,
                )
            )
            at = datetime.now(UTC) - timedelta(days=days)
            key = made.inserted_primary_key
            assert key is not None
            work.connection.execute(ledger.tables.state.insert().values(id=key[0], state="confirmed", state_at=at))
    ledger.close()
    found = doctor.look("retention")["retention", "ledger"]
    assert (found.state, "1 dead letter" in found.told, "40d ago" in found.told) == ("warning", True, True)
    assert "to 96" in found.todo
    assert doctor.look("retention", relay__inbox_retention_hours=24 * 50)["retention", "ledger"].state == "ok"
    other = Inbox("shipping")
    assert doctor.look("retention", inbox=other)["retention", "ledger"].state == "ok"


@pytest.mark.parametrize(
    ("options", "name", "state"),
    [
        ({}, "kafka_options", "ok"),
        ({"auto_offset_reset": "latest"}, "auto_offset_reset", "problem"),
        ({"auto_offset_reset": "earliest"}, "kafka_options", "ok"),
        ({"retries": 0}, "retries", "problem"),
        ({"retries": 3}, "retries", "warning"),
        ({"delivery_timeout_ms": 20_000}, "delivery_timeout_ms", "warning"),
        ({"max_in_flight_requests_per_connection": 9}, "max_in_flight_requests_per_connection", "problem"),
        ({"security_protocol": "SASL_PLAINTEXT", "sasl_plain_password": "hush!"}, "security_protocol", "warning"),
        ({"ssl_check_hostname": False}, "ssl_check_hostname", "warning"),
        ({"acks": 1}, "kafka_options", "problem"),
        ({"enable_auto_commit": True}, "kafka_options", "problem"),
        ({"partitioner": "mine"}, "kafka_options", "problem"),
    ],
)
def test_options_that_weaken_a_promise_are_told(
    on_sqlite: Doctor, options: dict[str, Any], name: str, state: str
) -> None:
    found = on_sqlite.look("options", kafka_options=json.dumps(options))
    assert {subject: each.state for (_, subject), each in found.items()} == {name: state}
    assert "hush!" not in str(found)


def test_a_lease_that_is_short_and_health_that_nobody_sees(on_sqlite: Doctor) -> None:
    found = on_sqlite.look("health", relay__lease_seconds=2)
    assert {each.state for each in found.values()} == {"warning"}
    assert len(found) == 2
    found = on_sqlite.look("health", health_address="127.0.0.1:8080")
    assert {subject: each.state for (_, subject), each in found.items()} == {"health_address": "ok"}


def test_a_server_that_hangs_holds_the_doctor_up_once(
    postroom_postgres_server: Postgres, doctor: Doctor, on_sqlite: Doctor
) -> None:
    checks = [check for check in CHECKS if check.whom in ("", "database")]
    with closing(doctor.patient()) as patient:
        postroom_postgres_server.pause()
        try:
            found = examine(patient, checks, longest=1)
        finally:
            postroom_postgres_server.resume()
    silent = [each for each in found if "no answer within 1 s" in each.told]
    assert [(each.check, each.state) for each in silent] == [("database", "problem")]
    assert {each.check for each in found} >= {"settings", "retention"}, "the others are looked at"


def test_what_nobody_thought_of_is_told_and_ends_nothing(on_sqlite: Doctor) -> None:
    def fails(_: Patient) -> Iterator[Finding]:
        yield Finding("odd", "", "ok", "so far")
        raise KeyError("x")

    with closing(on_sqlite.patient()) as patient:
        found = examine(patient, [Check("odd", "", fails), *CHECKS[:1]])
    assert [each.state for each in found] == ["ok", "unknown", "ok"]


def test_pgbouncer_in_statement_mode_is_told(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ("database", "") not in doctor.look("database")

    def refuses(self: Statistics, sql: str, params: dict[str, Any] | None = None) -> list[Any]:
        del self, sql, params
        raise DatabaseUnavailable(
            "The database does not answer (transaction blocks not allowed in statement pooling mode)."
        )

    monkeypatch.setattr(Statistics, "answer", refuses)
    found = doctor.look("database")["database", ""]
    assert (found.state, found.todo) == ("problem", "Set its pool_mode to transaction or session.")
