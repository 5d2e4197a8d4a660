"""Least privilege: each kind of role can do its work on a real PostgreSQL, and nothing else."""

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import errors as pg
from psycopg import sql
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from postroom.cli.app import App
from postroom.cli.checkup.examine import CHECKS, examine
from postroom.cli.checkup.patient import Finding, Patient
from postroom.cli.command import COMMON
from postroom.cli.root import run
from postroom.inbox import Context, Inbox
from postroom.inbox.handlers import Received
from postroom.messaging.errors import ConfigurationError, NotAuthorized, UsageError
from postroom.outbox import Message, Names, Outbox, grants, schema
from postroom.outbox.database import open_store
from postroom.outbox.log import Refusal
from postroom.outbox.names import TABLES, queries
from postroom.relay import Relay, RelaySettings
from postroom.testing.kafka import Broker
from postroom.testing.postgres import Database

NAMES = Names("shop", {"outbox": "events"})
OUTBOX = Outbox(source="/test", names=NAMES)
LEDGER = ("dead_letter", "dead_letter_state", "dead_letter_record", "dead_letter_source", "dead_letter_plan")
COUNTED = {"dead_letter": "s", "dead_letter_state": "s", "dead_letter_source": "s"}
#: S, I, U, D: select, insert, update and delete; in lower case some columns only.
RIGHTS: dict[str, dict[str, str]] = {
    "app": {"events": "i", "outbox_scheduled": "i"},
    "relay": {
        "events": "Si", "outbox_scheduled": "SUD", "outbox_parked": "SIUD", "outbox_action": "SI",
        "relay_cursor": "SU", "relay_instance": "SIUD", "relay_control": "SIU", "schema_version": "S",
        **COUNTED,
    },
    "consumer": {
        "events": "i", "outbox_scheduled": "i", "inbox": "SIU", "inbox_held": "SIUD", "inbox_attempt": "SIUD",
        "inbox_control": "Siu", "inbox_action": "Si", "schema_version": "S", **COUNTED,
    },
    "operator": {
        "events": "Si", "outbox_scheduled": "S", "outbox_parked": "SUD", "outbox_action": "SIu",
        "relay_cursor": "S", "relay_instance": "S", "relay_control": "SIU", "schema_version": "S",
        "inbox": "SIU", "inbox_held": "SUD", "inbox_attempt": "S", "inbox_control": "SIU", "inbox_action": "SI",
        "dead_letter_action": "SI", **dict.fromkeys(LEDGER, "SIUD"),
    },
    "reader": {NAMES.tables.get(table, table): "S" for table in TABLES},
}  # fmt: skip


@dataclass
class Roles:
    """A database whose tables belong to a role that is no superuser, and one role of each kind."""

    owner: str
    urls: dict[str, str]
    names: dict[str, str]

    def execute(self, kind: str, query: str, *params: object) -> list[Any]:
        with psycopg.connect(self.urls[kind]) as connection:
            cursor = connection.execute(query.encode(), params)
            return cursor.fetchall() if cursor.description else []

    def as_owner(self, query: str) -> list[Any]:
        with psycopg.connect(self.owner) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def publish(self, kind: str, count: int, topic: str, **options: Any) -> None:
        with psycopg.connect(self.urls[kind]) as connection:
            for n in range(count):
                OUTBOX.publish(connection, Message(topic=topic, key=b"k", payload=b"%d" % n, type="n"), **options)


@pytest.fixture
def roles(postroom_postgres: Database) -> Iterator[Roles]:
    suffix = secrets.token_hex(4)
    names = {kind: f'{kind}"{suffix}' for kind in ("owner", *grants.KINDS)}
    url = make_url(postroom_postgres.url)

    def url_of(kind: str) -> str:
        return url.set(username=names[kind], password="secret").render_as_string(hide_password=False)

    with psycopg.connect(postroom_postgres.url, autocommit=True) as connection:
        for name in names.values():
            made = sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'secret'").format(sql.Identifier(name))
            connection.execute(made)
        database = sql.Identifier(url.database or "")
        connection.execute(
            sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(database, sql.Identifier(names["owner"]))
        )
        try:
            schema.upgrade(url_of("owner"), NAMES)
            yield Roles(url_of("owner"), {kind: url_of(kind) for kind in grants.KINDS}, names)
        finally:
            for name in names.values():
                connection.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(name)))
                connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.fixture
def granted(roles: Roles) -> Roles:
    wanted = [grants.Grant.of(kind, roles.names[kind]) for kind in grants.KINDS]
    grants.apply(roles.owner, NAMES, wanted, actor="ann@desk", reason="a test")
    return roles


def refused(roles: Roles, kind: str, *queries: str) -> None:
    for query in queries:
        with pytest.raises(pg.InsufficientPrivilege):
            roles.execute(kind, query)


def test_a_role_has_the_rights_of_its_kind_and_no_others(granted: Roles) -> None:
    query = """
        SELECT kind, relname,
               coalesce(string_agg(CASE WHEN has_table_privilege(role, c.oid, r) THEN left(r, 1)
                                        WHEN part AND has_any_column_privilege(role, c.oid, r) THEN lower(left(r, 1))
                                   END, '' ORDER BY place), '')
        FROM pg_class c, unnest(%s::text[], %s::text[]) AS of (kind, role),
             unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[], '{t,t,t,f,f,t,f}'::bool[])
             WITH ORDINALITY AS rights (r, part, place)
        WHERE relkind IN ('r', 'p') AND relnamespace = 'shop'::regnamespace
        GROUP BY kind, relname"""
    kinds = list(granted.urls)
    with psycopg.connect(granted.owner) as connection:
        rows = connection.execute(query, [kinds, [granted.names[kind] for kind in kinds]]).fetchall()

    for kind in kinds:
        assert {table: rights for of, table, rights in rows if of == kind and rights} == RIGHTS[kind], kind


def test_an_app_publishes_and_sees_nothing(granted: Roles) -> None:
    granted.publish("app", 1, "orders")
    granted.publish("app", 1, "orders", deliver_at=datetime.now(UTC) + timedelta(hours=1))
    engine = sa.create_engine(make_url(granted.urls["app"]).set(drivername="postgresql+psycopg"))
    with Session(engine) as session, session.begin():
        for n in range(20):
            OUTBOX.publish(session, Message(topic="orders", key=b"k", payload=b"%d" % n, type="n"))
    engine.dispose()

    assert granted.as_owner("SELECT count(*) FROM shop.events") == [(21,)]
    refused(
        granted,
        "app",
        "SELECT payload FROM shop.events",
        "SELECT id FROM shop.outbox_scheduled",
        "UPDATE shop.events SET payload = ''",
        "DELETE FROM shop.events",
        "INSERT INTO shop.events (position, id, topic, type) VALUES (1, gen_random_uuid(), 't', 'n')",
        "INSERT INTO shop.events (xid, id, topic, type) VALUES ('3', gen_random_uuid(), 't', 'n')",
        "SELECT setval('shop.events_position', 1)",
        'SELECT shop."events_add_partitions"(100, 10)',
        "SELECT * FROM shop.\"events_drop_partitions\"('0', false, 1)",
        "SELECT * FROM shop.relay_cursor",
        "SELECT * FROM shop.dead_letter",
        "CREATE TABLE shop.mine ()",
    )


def test_a_relay_publishes_parks_moves_and_keeps_its_partitions(
    granted: Roles, workload: Any, steps: Any, eventually: Callable[..., None]
) -> None:
    granted.publish("app", 20, workload.topic)
    granted.publish("app", 1, workload.topic, deliver_at=datetime.now(UTC) - timedelta(seconds=1))
    with closing(workload.kafka.topics()) as topics:
        topics.create(workload.topic, 1, 1, {})
    url = granted.urls["relay"]
    granted.as_owner("SELECT setval('shop.events_position', 3000000)")
    settings = RelaySettings(lease_seconds=2, upkeep_seconds=0.05, shutdown_seconds=5)
    relay = Relay(open_store(url, NAMES), workload.kafka, settings=settings, observer=steps)
    relay.start()
    eventually(lambda: len(workload.records()) == 21, "all arrived")
    eventually(lambda: partitions(granted, "events") > 5, "further partitions were made")
    relay.stop()
    assert relay.join(30)

    store = open_store(url, NAMES)
    store.add_inbox_partitions()
    store.prune_inbox(timedelta(days=30))
    before = partitions(granted, "events")
    assert store.prune(timedelta(0)) == ["events_000000000", "events_000000001", "events_000000002"]
    store.pause("orders", "Kafka refused it", "postroom")
    store.close()
    assert partitions(granted, "events") == before - 3
    refused(
        granted,
        "relay",
        "UPDATE shop.events SET payload = ''",
        "DELETE FROM shop.events",
        "DROP TABLE shop.events_overflow",
        "ALTER TABLE shop.events ADD COLUMN mine text",
        "CREATE TABLE shop.mine ()",
        "SELECT * FROM shop.inbox",
        "SELECT message FROM shop.dead_letter",
        "SELECT * FROM shop.dead_letter_record",
        "DELETE FROM shop.outbox_action",
    )


def partitions(roles: Roles, table: str) -> int:
    [(count,)] = roles.as_owner(f"SELECT count(*) FROM pg_inherits WHERE inhparent = 'shop.{table}'::regclass")
    return int(count)


@pytest.mark.parametrize("kind", ["relay", "consumer", "reader"])
def test_whoever_reports_metrics_counts_dead_letters(granted: Roles, kind: str) -> None:
    named = queries(NAMES, "postgres")
    assert granted.execute(kind, named["dead_letter_stats"]) == []
    assert granted.execute(kind, named["dead_letter_age"]) == [(None,)]


def test_a_consumer_handles_holds_and_writes_dead_letters(
    granted: Roles, ledger: Any, eventually: Callable[..., None]
) -> None:
    granted.as_owner("CREATE TABLE shop.effect (message text)")
    granted.as_owner(f'GRANT INSERT ON shop.effect TO "{granted.names["consumer"].replace(chr(34), chr(34) * 2)}"')
    inbox: Inbox = ledger.inbox(names=NAMES)

    @inbox.handler(ledger.topic, type="n")
    def handle(message: Received, ctx: Context) -> None:
        if ctx.message_id.endswith("/2"):
            raise ValueError("a poisonous message")
        ctx.session.execute(sa.text("INSERT INTO shop.effect (message) VALUES (:m)"), {"m": ctx.message_id})
        ctx.publish(Message(topic="sent-on", key=b"k", payload=b"{}", type="n"))

    ledger.create(1)
    ledger.send(3, keys=1)
    ledger.start(inbox, url=granted.urls["consumer"], attempts=1)
    eventually(lambda: granted.as_owner("SELECT count(*) FROM shop.inbox") == [(3,)], "all were closed")

    topics = [f"{ledger.topic}.{ledger.group}.dlq", "sent-on"]
    query = "SELECT topic, count(*)::int FROM shop.events GROUP BY topic ORDER BY topic"
    assert granted.as_owner(query) == [(topics[0], 1), (topics[1], 2)]
    refused(
        granted,
        "consumer",
        "SELECT * FROM shop.events",
        "DELETE FROM shop.inbox",
        "UPDATE shop.inbox_control SET policy = '{}'",
        "SELECT * FROM shop.relay_cursor",
        "SELECT * FROM shop.outbox_parked",
        "SELECT key FROM shop.dead_letter",
        "SELECT * FROM shop.\"inbox_drop_partitions\"('0', false)",
    )


@pytest.fixture
def operate(roles: Roles, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """``operate(kind, *arguments)``: the command line as a role of that kind; what it says."""
    monkeypatch.setenv("POSTROOM_SCHEMA", "shop")
    monkeypatch.setenv("POSTROOM_TABLES", '{"outbox": "events"}')

    def as_role(kind: str, *arguments: str, code: int = 0) -> str:
        monkeypatch.setenv("POSTROOM_DATABASE_URL", roles.urls[kind])
        capsys.readouterr()
        found = run([*arguments, "--json"])
        told = capsys.readouterr()
        assert found == code, f"{arguments}: {told.err} {told.out}"
        return told.err if code else told.out

    return as_role


def park(roles: Roles) -> None:
    """Two messages, as a relay does."""
    store = open_store(roles.urls["relay"], NAMES)
    reader = store.reader("test", 60)
    reader.claim()
    batch = reader.read(1000)
    reader.settle([batch], [Refusal(row, "too large") for row in batch.rows[-2:]])
    reader.release()
    reader.close()
    store.close()


def hold(roles: Roles, offset: int) -> str:
    """A held message, as a consumer does; its id."""
    now = datetime.now(UTC)
    place = {"group": "billing", "topic": "orders", "partition": 0, "offset": offset, "message_id": f"m-{offset}"}
    record = {"key": b"k", "type": "n", "payload": b"{}", "headers": "[]", "timestamp": now}
    failure = {"handler": "h", "state": "retry", "attempts": 1, "error": "E: e", "first_failed_at": now}
    params = {**place, **record, **failure, "next_attempt_at": now}
    with psycopg.connect(roles.urls["consumer"]) as connection:
        connection.execute(queries(NAMES, "postgres")["hold"].encode(), params)
        return str(connection.execute("SELECT max(id) FROM shop.inbox_held").fetchall()[0][0])


def test_an_operator_does_what_the_commands_do_and_cannot_rewrite_the_record(
    granted: Roles, operate: Callable[..., str], ledger: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTROOM_KAFKA_BOOTSTRAP_SERVERS", ledger.broker.bootstrap_servers)
    monkeypatch.setenv("POSTROOM_KAFKA_OPTIONS", json.dumps(dict(ledger.broker.client_config)))
    granted.publish("app", 5, "orders")
    park(granted)
    positions = [str(row["position"]) for row in json.loads(operate("operator", "outbox", "parked", "list"))["parked"]]
    operate("operator", "outbox", "parked", "retry", positions[0], "--yes")
    operate("operator", "outbox", "parked", "discard", positions[1], "--yes")
    operate("operator", "outbox", "replay", "--topic", "orders", "--yes")
    operate("operator", "outbox", "prune", "--keep", "1h", "--yes")
    operate("operator", "outbox", "list")
    operate("operator", "outbox", "stats")
    for words in (["pause", "--reason", "a test"], ["resume"], ["limit", "--rate", "5"], ["status"]):
        operate("operator", "relay", *words)

    held = [hold(granted, offset) for offset in range(2)]
    operate("operator", "inbox", "held", "list")
    operate("operator", "inbox", "held", "retry", held[0], "--yes")
    operate("operator", "inbox", "held", "discard", held[1], "--yes")
    operate("operator", "inbox", "pause", "--group", "billing", "--reason", "a test")
    operate("operator", "inbox", "resume", "--group", "billing")
    operate("operator", "inbox", "policy", "set", "billing", "--attempts", "7")
    operate("operator", "inbox", "prune", "--yes")
    operate("operator", "inbox", "actions")

    ledger.create(1)
    dead = f"{ledger.topic}.billing.dlq"
    told = {"__dlq.errors.topic": ledger.topic, "__dlq.errors.group": "billing"}
    ledger.put(*(ledger.record("k", n, topic=dead, **told) for n in (1, 2)))
    chosen = ["--topic", ledger.topic]
    letters = json.loads(operate("operator", "dlq", "list", *chosen))["dead_letters"]
    assert len(letters) == 2
    operate("operator", "dlq", "replay", str(letters[0]["id"]), "--reason", "a test", "--yes")
    operate("operator", "dlq", "stats")

    refused(
        granted,
        "operator",
        "UPDATE shop.events SET payload = ''",
        "DELETE FROM shop.events",
        "UPDATE shop.outbox_action SET actor = 'nobody'",
        "DELETE FROM shop.outbox_action",
        "DELETE FROM shop.inbox_action",
        "UPDATE shop.dead_letter_action SET actor = 'nobody'",
        "UPDATE shop.relay_cursor SET page_position = 1",
        "DELETE FROM shop.inbox",
        "DROP TABLE shop.events_overflow",
    )


def test_a_reader_looks_and_changes_nothing(granted: Roles, operate: Callable[..., str]) -> None:
    granted.publish("app", 3, "orders")
    for words in ("relay status", "outbox stats", "outbox list", "outbox parked list", "inbox held list", "db check"):
        operate("reader", *words.split())

    told = operate("reader", "relay", "pause", "--reason", "a test", code=1)
    assert "The database does not allow this; grant the right" in json.loads(told)["error"]
    refused(granted, "reader", "DELETE FROM shop.events", "INSERT INTO shop.outbox_action VALUES (DEFAULT)")


def test_who_may_look_may_verify_and_so_may_a_relay(
    granted: Roles,
    operate: Callable[..., str],
    postroom_kafka: Broker,
    postroom_topic: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("POSTROOM_KAFKA_BOOTSTRAP_SERVERS", postroom_kafka.bootstrap_servers)
    monkeypatch.setenv("POSTROOM_KAFKA_OPTIONS", json.dumps(dict(postroom_kafka.client_config)))
    granted.publish("app", 2, postroom_topic("orders"))
    for kind in ("reader", "operator", "relay"):
        [topic] = json.loads(operate(kind, "verify"))["topics"]
        assert (topic["logged"], topic["waiting"]) == (2, 2)
    for kind in ("app", "consumer"):
        assert "does not allow" in json.loads(operate(kind, "verify", code=1))["error"]


def test_another_run_takes_back_what_it_does_not_grant_and_is_written_down(
    granted: Roles, operate: Callable[..., str]
) -> None:
    role = granted.names["operator"]
    grants.apply(granted.owner, NAMES, [grants.Grant.of("app", role)], actor="ann@desk", reason=None)

    granted.publish("operator", 1, "orders")
    refused(granted, "operator", "SELECT * FROM shop.events", "SELECT shop.events_drop_partitions('0', true, 1)")
    actions = json.loads(operate("reader", "outbox", "actions"))["actions"]
    assert [(each["action"], each["actor"]) for each in actions] == [("grant", "ann@desk")] * 2
    assert actions[0]["reason"] == f"app to {role}"
    assert actions[1]["reason"].endswith(": a test")


def test_a_function_that_an_upgrade_made_anew_is_the_owners_again_after_another_run(granted: Roles) -> None:
    query = "ALTER FUNCTION shop.events_add_partitions(integer, bigint) SECURITY INVOKER"
    granted.as_owner(query)
    refused(granted, "relay", "SELECT shop.events_add_partitions(9, 1000000)")

    wanted = [grants.Grant.of("relay", granted.names["relay"])]
    grants.apply(granted.owner, NAMES, wanted, actor="ann@desk", reason=None)
    assert granted.execute("relay", "SELECT shop.events_add_partitions(9, 1000000)") == [(5,)]


def test_the_functions_look_for_nothing_where_their_caller_may_write(granted: Roles) -> None:
    """A role that runs a function as its owner must not be able to put an operator of its own under it."""
    granted.as_owner("CREATE SCHEMA open")
    granted.as_owner("GRANT CREATE, USAGE ON SCHEMA open TO PUBLIC")
    with psycopg.connect(granted.urls["relay"]) as connection:
        body = "$$BEGIN RAISE 'hijacked by %', current_user; END$$"
        connection.execute(
            f"CREATE FUNCTION open.mine(integer, bigint) RETURNS bigint LANGUAGE plpgsql AS {body}".encode()
        )
        connection.execute("CREATE OPERATOR open.* (LEFTARG = integer, RIGHTARG = bigint, FUNCTION = open.mine)")
        connection.execute("SET search_path = open, pg_catalog")
        connection.execute("SELECT shop.events_add_partitions(9, 1000000)")


@pytest.mark.parametrize(
    ("kind", "role", "sentence"),
    [
        ("boss", "shop", "no kind of role 'boss'; there are app, relay"),
        ("app", "", "1 to 63 bytes"),
        ("app", "x" * 64, "1 to 63 bytes"),
        ("app", "a\nb", "1 to 63 bytes"),
        ("app", "a\udc80", "1 to 63 bytes"),
        ("app", "public", "'public' is no role"),
    ],
)
def test_a_grant_that_cannot_be_is_refused(kind: str, role: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        grants.Grant.of(kind, role)


def test_roles_that_no_grant_limits_or_that_are_missing_are_refused(roles: Roles) -> None:
    def apply(url: str, role: str) -> None:
        grants.apply(url, NAMES, [grants.Grant.of("app", role)], actor="ann@desk", reason=None)

    with pytest.raises(ConfigurationError, match=r"no role 'nobody.here'; make it: CREATE ROLE \"nobody.here\" LOGIN"):
        apply(roles.owner, "nobody.here")
    with pytest.raises(ConfigurationError, match="no grant limits it"):
        apply(roles.owner, roles.names["owner"])
    roles.as_owner(f'GRANT USAGE ON SCHEMA shop TO "{roles.names["reader"].replace(chr(34), chr(34) * 2)}"')
    roles.as_owner(f'GRANT SELECT ON shop.schema_version TO "{roles.names["reader"].replace(chr(34), chr(34) * 2)}"')
    with pytest.raises(NotAuthorized, match="does not allow this"):
        apply(roles.urls["reader"], roles.names["app"])
    with pytest.raises(UsageError, match="SQLite knows no roles"):
        apply("sqlite://", roles.names["app"])


def test_the_command_prints_the_sql_and_runs_it_when_told(roles: Roles, operate: Callable[..., str]) -> None:
    words = ["db", "grants", "--role", f"app={roles.names['app']}"]
    printed = json.loads(operate("app", *words))
    assert printed["sql"].startswith("BEGIN;\n")
    assert not printed["applied"]

    roles.as_owner(printed["sql"])
    roles.publish("app", 1, "orders")


def test_the_command_asks_before_it_runs_the_sql_and_writes_it_down(roles: Roles, operate: Callable[..., str]) -> None:
    roles.urls["owner"] = roles.owner
    words = ["db", "grants", "--role", f"app={roles.names['app']}", "--role", f"reader={roles.names['reader']}"]
    told = operate("owner", *words, "--apply", code=2)
    assert "add --yes" in told
    assert json.loads(operate("owner", *words, "--apply", "--dry-run"))["applied"] is False
    with pytest.raises(NotAuthorized, match="permission denied for schema shop"):
        roles.publish("app", 1, "orders")

    assert json.loads(operate("owner", *words, "--apply", "--yes", "--reason", "a new service"))["applied"] is True
    roles.publish("app", 1, "orders")
    [action] = json.loads(operate("reader", "outbox", "actions"))["actions"]
    assert action["action"] == "grant"
    assert action["reason"].endswith(": a new service")


def doctor(url: str, inbox: Inbox | None = None) -> dict[tuple[str, str], Finding]:
    """What the doctor finds as this role, in the database."""
    app = App()
    app.take({**dict.fromkeys(COMMON), "assignments": ["schema=shop", "tables.outbox=events"]})
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("POSTROOM_DATABASE_URL", url)
        assert app.loaded
    with closing(Patient(app, inbox)) as patient:
        found = examine(patient, [check for check in CHECKS if check.whom == "database"])
    assert not [each for each in found if each.todo == "Report it as a bug."], found
    return {(each.check, each.subject): each for each in found}


@pytest.mark.parametrize("kind", grants.KINDS)
def test_the_doctor_knows_what_a_role_is_good_for(granted: Roles, kind: str) -> None:
    found = doctor(granted.urls[kind])
    told = {place: each for place, each in found.items() if place[0] == "privileges"}
    assert {place: each.state for place, each in told.items()} == {("privileges", granted.names[kind]): "ok"}
    assert kind in told["privileges", granted.names[kind]].told
    assert not [each for each in found.values() if each.state == "problem"]
    unknown = {each.check for each in found.values() if each.state == "unknown"}
    expected = {
        "app": {"database", "transaction", "relay", "backlog", "parked", "inbox", "retention"},
        "relay": {"transaction", "inbox", "retention"},
        "consumer": {"transaction", "relay", "backlog", "parked", "retention"},
    }
    assert unknown == expected.get(kind, {"transaction"}), "a right that is missing is told, and nothing else"


@pytest.mark.parametrize(
    ("kind", "revoked", "missing"),
    [
        ("relay", "UPDATE ON shop.relay_cursor", "UPDATE on relay_cursor"),
        ("relay", "EXECUTE ON FUNCTION shop.events_add_partitions(integer, bigint)", "EXECUTE on function events_add"),
        ("consumer", "DELETE ON shop.inbox_held", "DELETE on inbox_held"),
        ("operator", "INSERT ON shop.dead_letter_action", "INSERT on dead_letter_action"),
        ("app", "USAGE ON SEQUENCE shop.events_position", "USAGE on sequence events_position"),
    ],
)
def test_the_doctor_names_the_right_that_is_missing(granted: Roles, kind: str, revoked: str, missing: str) -> None:
    role = granted.names[kind]
    granted.as_owner(f"REVOKE {revoked} FROM {quoted(role)}")
    found = doctor(granted.urls[kind])
    lacking = found["privileges", kind]
    assert (lacking.state, lacking.told.split(": ", 1)[1].startswith(missing)) == ("warning", True), lacking
    assert f"--role {kind}={role}" in lacking.todo
    assert (kind != "consumer") or f"--role app={role}" in lacking.todo, "a run takes back what it does not name"


def test_the_doctor_of_an_inbox_needs_a_consumer(granted: Roles) -> None:
    inbox = Inbox("billing", names=NAMES)
    assert ("privileges", "consumer") not in doctor(granted.urls["consumer"], inbox)
    granted.as_owner(f"REVOKE DELETE ON shop.inbox_held FROM {quoted(granted.names['consumer'])}")
    for kind in ("consumer", "reader"):
        assert doctor(granted.urls[kind], inbox)["privileges", "consumer"].state == "problem", kind


def test_the_doctor_warns_of_a_role_that_no_grant_limits(roles: Roles, postroom_postgres: Database) -> None:
    owner = doctor(roles.owner)["privileges", roles.names["owner"]]
    assert (owner.state, "owns the tables" in owner.told) == ("warning", True)
    name = make_url(postroom_postgres.url).username or ""
    superuser = doctor(postroom_postgres.url)["privileges", name]
    assert (superuser.state, "is a superuser" in superuser.told) == ("warning", True)
    nobody = doctor(roles.urls["app"])["privileges", roles.names["app"]]
    assert (nobody.state, "no right on the tables" in nobody.told) == ("problem", True)


def test_the_doctor_sees_functions_that_an_upgrade_made_anew(granted: Roles) -> None:
    assert ("privileges", "functions") not in doctor(granted.urls["relay"])
    granted.as_owner("ALTER FUNCTION shop.inbox_add_partitions(integer) SECURITY INVOKER")
    found = doctor(granted.urls["relay"])["privileges", "functions"]
    assert (found.state, "--role relay=" in found.todo) == ("problem", True)


def quoted(role: str) -> str:
    return '"' + role.replace('"', '""') + '"'


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--role", "shop"], "KIND=ROLE, such as app=shop"),
        (["--role", "boss=shop"], "no kind of role 'boss'"),
        (["--role", "app=none"], "'none' is no role of its own"),
        ([], "Missing option '--role'"),
    ],
)
def test_what_cannot_be_granted_gives_one_sentence(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["db", "grants", *words]) == 2
    assert sentence in capsys.readouterr().err
