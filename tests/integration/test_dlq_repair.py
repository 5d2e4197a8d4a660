"""Repairing, moving and erasing dead letters: whole or not at all, on both databases."""

import io
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from postroom.dlq import (
    DeadLetter,
    Filter,
    Ledger,
    Repair,
    State,
    Whose,
    changeable,
    count,
    discard,
    each,
    edit,
    export_letters,
    find,
    forget,
    import_letters,
    make_plan,
    purge,
    release,
    reopen,
    run_plan,
)
from postroom.dlq.ingest import insert
from postroom.messaging.dead_letter import Failure, dead_letter_headers
from postroom.messaging.errors import InvalidMessage, UsageError
from postroom.messaging.headers import dump_pairs, first, load
from postroom.messaging.records import Partition, ReceivedRecord
from postroom.outbox import Message, Outbox, schema
from postroom.outbox.database import open_store, parse_url
from postroom.outbox.log import Refusal
from postroom.outbox.sqlite import stored_moment
from postroom.outbox.write import run_query

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
TOPIC = "orders.billing.dlq"


def letter(
    offset: int,
    *,
    key: bytes | None = b"k",
    payload: bytes | None = b'{"n": 1.10}',
    headers: list[tuple[str, bytes]] | None = None,
    topic: str = TOPIC,
) -> DeadLetter:
    own = [("ce_id", b"m-%d" % offset), ("ce_type", b"order.placed"), *(headers or [])]
    record = ReceivedRecord(Partition("orders", 0), offset, key, payload, own, NOW)
    failure = Failure(ValueError(f"boom of {key!r}"), "charge", 3, NOW, NOW)
    dead = dead_letter_headers(record, "billing", failure)
    return DeadLetter.of(ReceivedRecord(Partition(topic, 0), offset, key, payload, dead, NOW))


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    made = f"sqlite:///{tmp_path / 'app.db'}"
    if request.param == "postgres":
        made = request.getfixturevalue("postroom_postgres").url
    schema.upgrade(made)
    return made


@pytest.fixture(name="ledger")
def opened(url: str) -> Iterator[Ledger]:
    ledger = Ledger(url)
    yield ledger
    ledger.close()


@pytest.fixture
def add(ledger: Ledger) -> Callable[..., list[int]]:
    """Puts letters into the ledger; in a state, if told so."""

    def put(*letters: DeadLetter, **values: Any) -> list[int]:
        state, fact = ledger.tables.state, ledger.tables.fact
        standing = {name: value for name, value in values.items() if name in state.c}
        facts = {name: value for name, value in values.items() if name in fact.c}
        with ledger.changing() as work:
            ids = list(insert(work, letters))
            if standing:
                rows = [{"id": id_, "state": "dead", "state_at": datetime.now(UTC), **standing} for id_ in ids]
                work.connection.execute(sa.insert(state), rows)
            if facts:
                work.connection.execute(sa.update(fact).where(fact.c.id.in_(ids)).values(facts))
        return ids

    return put


def rows(ledger: Ledger, sql: str) -> list[tuple[Any, ...]]:
    with ledger.reading() as connection:
        dialect = "sqlite" if ledger.sqlite else "postgres"
        return [tuple(row) for row in connection.exec_driver_sql(ledger.names.render(sql, dialect))]


def one(ledger: Ledger, id_: int) -> DeadLetter:
    [found] = ledger.letters([id_])
    return found


def all_of(ledger: Ledger) -> list[DeadLetter]:
    return list(each(ledger, Filter(), records=True))


# Editing


def test_the_program_of_the_how_to_repairs(
    rooms: Path, url: str, ledger: Ledger, add: Callable[..., list[int]]
) -> None:
    page = (rooms / "docs" / "how-to" / "repair-dead-letters.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    program: dict[str, Any] = {}
    exec(compile(code, "repair.py", "exec"), program)
    [old] = add(letter(5, payload=b'{"n": 1.10, "note": "long"}'))
    new = program["without_note"](url, old)
    assert (new.payload, new.follows) == (b'{"n":1.10}', old)
    assert one(ledger, old).state is State.DISCARDED


def test_an_edited_letter_takes_the_place_of_the_old_one(ledger: Ledger, add: Callable[..., list[int]]) -> None:
    [old] = add(letter(5), rounds=2, same_failures=2, order_partition=3, order_offset=7, state="quarantined")
    before = one(ledger, old)
    repair = Repair(payload=b'{"n": 2}', set={"expires_at": "2030-01-01T00:00:00Z"}, remove=["traceparent"])
    new = edit(ledger, old, repair, actor="ann", reason="typo")
    assert (new.state, new.follows, new.place, new.incarnation) == (State.DEAD, old, before.place, -1)
    assert (new.rounds, new.same_failures, new.order_partition, new.order_offset) == (2, 0, 3, 7)
    assert new.message_id == new.inbox_id == first(new.headers or (), "ce_id") != before.message_id
    assert first(new.headers or (), "causation_id") == before.message_id
    assert (new.size, new.payload) == (8, b'{"n": 2}')
    assert new.expires_at == datetime(2030, 1, 1, tzinfo=UTC)
    assert (new.fingerprint, new.error, new.message) == (before.fingerprint, before.error, before.message)
    kept = {name for name, _ in before.headers or ()} - {"ce_id"}
    assert all(first(new.headers or (), name) == first(before.headers or (), name) for name in kept)
    after = one(ledger, old)
    assert (after.state, after.payload) == (State.DISCARDED, before.payload)
    [action] = ledger.actions(letter=old)
    assert (action.action, action.actor, action.reason) == ("edit", "ann", f"typo (letter {new.id} takes its place)")


def test_each_edit_has_a_place_of_its_own(ledger: Ledger, add: Callable[..., list[int]]) -> None:
    [old] = add(letter(5))
    second = edit(ledger, old, Repair(payload=b"2"), actor="ann")
    third = edit(ledger, second.id, Repair(payload=b"3"), actor="ann")
    assert (second.incarnation, third.incarnation, third.follows) == (-1, -2, second.id)
    assert one(ledger, second.id).state is State.DISCARDED


@pytest.mark.parametrize("state", ["planned", "replayed", "confirmed", "failed-again", "discarded"])
def test_only_dead_and_quarantined_letters_are_edited(
    ledger: Ledger, add: Callable[..., list[int]], state: str
) -> None:
    [old] = add(letter(5), state=state, plan_id=1)
    with pytest.raises(UsageError, match=f"is {state}, and only dead and quarantined"):
        edit(ledger, old, Repair(payload=b"2"), actor="ann")
    assert len(all_of(ledger)) == 1


def test_what_is_refused_changes_nothing(ledger: Ledger, add: Callable[..., list[int]]) -> None:
    [old] = add(letter(5, key=None))

    def refuse(made: DeadLetter) -> None:
        assert made.payload == b"2"
        raise InvalidMessage("no")

    with pytest.raises(InvalidMessage, match="no"):
        edit(ledger, old, Repair(payload=b"2"), actor="ann", check=refuse)
    with pytest.raises(InvalidMessage, match="tombstone needs a key"):
        edit(ledger, old, Repair(payload=None), actor="ann")
    with pytest.raises(UsageError, match="Nothing of dead letter"):
        edit(ledger, old, Repair(payload=b'{"n": 1.10}'), actor="ann")
    with pytest.raises(UsageError, match="There is no dead letter 99"):
        edit(ledger, 99, Repair(payload=b"2"), actor="ann")
    assert [each_.state for each_ in all_of(ledger)] == [State.DEAD]
    assert ledger.actions() == []


def test_masked_and_erased_letters_are_not_edited(ledger: Ledger, add: Callable[..., list[int]]) -> None:
    [masked] = add(letter(5), masked=True)
    [erased] = add(letter(6), forgotten_at=NOW)
    with pytest.raises(UsageError, match="masked"):
        edit(ledger, masked, Repair(payload=b"2"), actor="ann")
    with pytest.raises(UsageError, match="erased"):
        edit(ledger, erased, Repair(payload=b"2"), actor="ann")


def test_the_replay_of_an_edited_letter_tells_what_it_replaces(ledger: Ledger, add: Callable[..., list[int]]) -> None:
    [old] = add(letter(5))
    new = edit(ledger, old, Repair(payload=b"2", key=b"other"), actor="ann")
    plan, _ = make_plan(ledger, Filter(ids=[new.id]), existing={"orders"}, actor="ann", told="one")
    assert plan is not None
    run_plan(ledger, plan.id, actor="ann", step_timeout=0.1)
    [(topic, key, payload, headers)] = rows(ledger, "SELECT topic, key, payload, headers FROM {outbox}")
    pairs = load(headers if isinstance(headers, str) else json.dumps(headers))[0]
    assert (topic, bytes(key), bytes(payload)) == ("orders", b"other", b"2")
    assert first(pairs, "postroom_replay_of") == "m-5"
    assert first(pairs, "ce_id") == new.message_id
    assert first(pairs, "postroom_replay_group") == "billing"


# Moving


def exported(ledger: Ledger, format_: Any) -> io.BytesIO:
    out = io.BytesIO()
    export_letters(all_of(ledger), out, format_)
    out.seek(0)
    return out


@pytest.mark.parametrize("format_", ["jsonl", "parquet"])
def test_an_import_brings_back_what_was_exported(
    ledger: Ledger, add: Callable[..., list[int]], tmp_path: Path, format_: Any
) -> None:
    if format_ == "parquet":
        pytest.importorskip("pyarrow")
    add(
        letter(1, payload=b"\xff\x00", headers=[("x", b"\xff\x00"), ("x", b""), ("\x00y", b"z")]),
        rounds=2,
        same_failures=1,
    )
    add(letter(2, payload=None), state="discarded", state_at=NOW - timedelta(days=3), follows=1)
    add(letter(3), state="quarantined", masked=True)
    add(letter(4), state="planned", plan_id=3, ordinal=1)
    add(letter(5), state="replayed", plan_id=3, ordinal=2)
    file = exported(ledger, format_)
    other = Ledger(f"sqlite:///{tmp_path / 'other.db'}")
    schema.upgrade(other.url)
    done = import_letters(other, file, format_, actor="ann", reason="moved")
    assert (done.imported, done.skipped) == (5, 0)
    wanted = [
        each_._replace(
            incarnation=-1,
            follows=None,
            plan_id=None,
            ordinal=None,
            state=State.DEAD if each_.state in ("planned", "replayed") else each_.state,
        )
        for each_ in all_of(ledger)
    ]
    found = all_of(other)
    assert [each_._replace(id=0) for each_ in found] == [each_._replace(id=0) for each_ in wanted]
    assert [(action.action, action.reason) for action in other.actions()] == [("import", "moved (5 letters)")]
    file.seek(0)
    again = import_letters(other, file, format_, actor="ann")
    assert (again.imported, again.skipped) == (0, 5)
    assert len(other.actions()) == 1
    other.close()


def test_what_is_in_the_ledger_is_skipped_and_another_message_of_its_place_is_not(
    ledger: Ledger, add: Callable[..., list[int]]
) -> None:
    add(letter(1))
    edit(ledger, 1, Repair(payload=b"2"), actor="ann")
    file = exported(ledger, "jsonl")
    other = letter(1, headers=[])._replace(id=9, message_id="another")
    out = io.BytesIO(file.getvalue())
    out.seek(0, io.SEEK_END)
    export_letters([other, other], out)
    out.seek(0)
    done = import_letters(ledger, out, actor="ann")
    assert (done.imported, done.skipped) == (1, 3)
    assert [each_.incarnation for each_ in all_of(ledger)] == [0, -1, -2]


def test_a_broken_line_leaves_the_parts_before_it(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postroom.dlq.exchange._AT_ONCE", 2)
    out = io.BytesIO()
    export_letters([letter(offset) for offset in range(5)], out)
    lines = out.getvalue().splitlines(keepends=True)
    lines[3] = lines[3].replace(b'"offset":3', b'"offset":"3"')
    with pytest.raises(UsageError, match=r"Line 4 is no dead letter: offset must be a whole number"):
        import_letters(ledger, io.BytesIO(b"".join(lines)), actor="ann")
    assert [each_.offset for each_ in all_of(ledger)] == [0, 1]
    out.seek(0)
    done = import_letters(ledger, out, actor="ann")
    assert (done.imported, done.skipped) == (3, 2)
    assert [action.reason for action in ledger.actions()] == ["1 letters", "2 letters", "2 letters"]


# Putting aside


def test_discard_release_and_reopen_change_what_they_may(ledger: Ledger, add: Callable[..., list[int]]) -> None:
    states = ["dead", "planned", "replayed", "confirmed", "failed-again", "discarded", "quarantined"]
    ids = {
        state: add(letter(n), state=state, rounds=4, same_failures=3, plan_id=1, ordinal=n)[0]
        for n, state in enumerate(states)
    }
    may = {
        verb: {one(ledger, id_).state for id_ in changeable(ledger, Filter(), verb)}
        for verb in ("discard", "release", "reopen")
    }
    assert may == {
        "discard": {"dead", "planned", "replayed", "failed-again", "quarantined"},
        "release": {"quarantined"},
        "reopen": {"discarded", "replayed", "confirmed"},
    }
    assert changeable(ledger, Filter(states=frozenset({State.DEAD})), "release") == []
    assert release(ledger, list(ids.values()), actor="ann") == 1
    freed = one(ledger, ids["quarantined"])
    assert (freed.state, freed.rounds, freed.same_failures) == (State.DEAD, 0, 0)
    assert reopen(ledger, list(ids.values()), actor="ann") == 3
    again = one(ledger, ids["confirmed"])
    assert (again.state, again.plan_id, again.ordinal) == (State.DEAD, None, None)
    assert discard(ledger, [ids["dead"], ids["confirmed"]], actor="ann", reason="twice") == 2
    assert ledger.actions(letter=ids["dead"])[0].reason == "twice"


def test_an_erased_letter_is_not_reopened(ledger: Ledger, add: Callable[..., list[int]]) -> None:
    [erased] = add(letter(1), state="discarded", forgotten_at=NOW)
    assert changeable(ledger, Filter(), "reopen") == []
    assert reopen(ledger, [erased], actor="ann") == 0


def test_what_an_open_letter_was_edited_from_is_not_reopened(ledger: Ledger, add: Callable[..., list[int]]) -> None:
    [old] = add(letter(1))
    new = edit(ledger, old, Repair(payload=b"2"), actor="ann")
    assert changeable(ledger, Filter(), "reopen") == []
    assert reopen(ledger, [old], actor="ann") == 0
    discard(ledger, [new.id], actor="ann", reason="the edit was wrong")
    assert changeable(ledger, Filter(), "reopen") == [old, new.id]
    assert reopen(ledger, [old], actor="ann") == 1


def test_purge_deletes_what_was_closed_long_ago(
    ledger: Ledger, add: Callable[..., list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postroom.dlq.disposal._AT_ONCE", 2)
    old = NOW - timedelta(days=40)
    for number, state in enumerate(State):
        add(letter(number), state=state.value, state_at=old)
        add(letter(number + 100), state=state.value, state_at=NOW)
    before = NOW - timedelta(days=30)
    assert purge(ledger, before, actor="ann", dry_run=True) == {"confirmed": 1, "failed-again": 1, "discarded": 1}
    assert len(all_of(ledger)) == 14
    assert purge(ledger, before, actor="ann", reason="old") == {"confirmed": 1, "failed-again": 1, "discarded": 1}
    assert len(all_of(ledger)) == len(rows(ledger, "SELECT id FROM {dead_letter_record}")) == 11
    [action] = ledger.actions()
    assert action.action == "purge"
    assert str(action.reason).startswith("old (deleted 1 confirmed, 1 discarded, 1 failed-again; older than 2026-01-30")
    assert purge(ledger, before, actor="ann", states=[State.DEAD, State.QUARANTINED]).total() == 2
    for state in (State.PLANNED, State.REPLAYED):
        with pytest.raises(UsageError, match="under way"):
            purge(ledger, before, actor="ann", states=[State.DEAD, state])
    assert purge(ledger, before, actor="ann") == {}
    assert len(ledger.actions()) == 2


def test_what_an_open_letter_was_edited_from_is_not_purged(ledger: Ledger, add: Callable[..., list[int]]) -> None:
    [old] = add(letter(1))
    new = edit(ledger, old, Repair(payload=b"2"), actor="ann")
    later = datetime.now(UTC) + timedelta(days=1)
    assert purge(ledger, later, actor="ann") == {}
    discard(ledger, [new.id], actor="ann", reason=None)
    assert purge(ledger, later, actor="ann") == {"discarded": 2}


# Erasing

JANE = b"jane"
MARK = b"jane@example.org"


def _payload(key: bytes) -> bytes:
    return MARK if key == JANE else b"x"


def hold(url: str, offset: int, state: str, key: bytes = JANE, headers: list[tuple[str, bytes]] | None = None) -> None:
    moments: dict[str, Any] = {"timestamp": NOW, "first_failed_at": NOW, "next_attempt_at": NOW}
    if url.startswith("sqlite"):
        moments = {name: stored_moment(moment) for name, moment in moments.items()}
    place = {"group": "billing", "topic": "orders", "partition": 0, "offset": offset, "message_id": f"h-{offset}"}
    record = {"key": key, "type": None, "payload": _payload(key), "headers": dump_pairs(headers or []), "handler": ""}
    engine = sa.create_engine(parse_url(url), poolclass=sa.NullPool)
    with engine.begin() as connection:
        run_query(
            connection,
            "hold",
            {**place, **record, **moments, "state": state, "attempts": 2, "error": "x"},
            Ledger(url).names,
        )


def park(url: str, key: bytes) -> None:
    """A message whose topic Kafka does not know."""
    outbox = Outbox(source="/test")
    entry = outbox.entry(Message(topic="gone", key=key, payload=_payload(key), type="n"))
    store = open_store(url)
    store.append([entry])
    reader = store.reader("test", 30)
    reader.claim()
    batch = reader.read(100)
    reader.settle([batch], [Refusal(row, "unknown topic") for row in batch.rows])
    reader.release()
    reader.close()
    store.close()


def dumped(ledger: Ledger) -> str:
    """All that the tables hold, but for the outbox's log."""
    tables = (
        "dead_letter",
        "dead_letter_record",
        "dead_letter_action",
        "inbox_held",
        "inbox",
        "inbox_action",
        "outbox_parked",
        "outbox_action",
    )
    return "\n".join(
        str([bytes(cell) if isinstance(cell, memoryview) else cell for cell in row])
        for table in tables
        for row in rows(ledger, f"SELECT * FROM {{{table}}}")
    )


def test_forgetting_leaves_nothing_of_a_key_but_what_it_tells(
    url: str, ledger: Ledger, add: Callable[..., list[int]]
) -> None:
    payload = b'{"mail": "jane@example.org"}'
    [old, other] = add(letter(1, key=JANE, payload=payload), letter(2, key=b"joe", payload=b"joe's"))
    edited = edit(ledger, old, Repair(payload=payload + b" ", key=b"renamed"), actor="ann", reason="r")
    import_letters(ledger, io.BytesIO(_moved(letter(9, key=JANE, payload=payload))), actor="ann")
    hold(url, 11, "retry")
    hold(url, 12, "dead-letter")
    hold(url, 13, "retry", key=b"joe")
    park(url, JANE)
    park(url, b"joe")
    assert MARK.decode() in dumped(ledger)

    would = forget(ledger, Whose(key=JANE), actor="ann", dry_run=True)
    untouched = dumped(ledger)
    assert (would.letters, would.held, would.parked, would.erased) == (3, 2, 1, 6)
    told = forget(ledger, Whose(key=JANE), actor="ann", reason="asked for")
    assert told == would
    assert untouched != dumped(ledger)

    for row in all_of(ledger):
        if row.id == other:
            assert (row.key, row.payload, row.state) == (b"joe", b"joe's", State.DEAD)
            continue
        assert (row.key, row.payload, row.message, row.headers, row.size) == (None, None, None, [], None)
        assert (row.state, row.error) == (State.DISCARDED, "ValueError")
        assert row.forgotten_at is not None
        assert row.message_id in {"m-1", "m-9", edited.message_id}
    assert told.records == {TOPIC: 2, "orders": 4}
    assert (told.logged, told.scheduled, told.results) == ({"gone": 1}, 0, 0)
    assert rows(ledger, "SELECT message_id FROM {inbox_held}") == [("h-13",)]
    assert rows(ledger, "SELECT message_id, outcome FROM {inbox}") == [("h-11", "discarded")]
    assert [bytes(key) for (key,) in rows(ledger, "SELECT key FROM {outbox_parked}")] == [b"joe"]
    assert "jane" not in dumped(ledger)
    again = forget(ledger, Whose(key=JANE), actor="ann")
    assert again.erased == 0
    assert [action.action for action in ledger.actions()].count("forget") == 4


def _moved(one_: DeadLetter) -> bytes:
    out = io.BytesIO()
    export_letters([one_], out)
    return out.getvalue()


def test_what_cannot_be_erased_is_counted(url: str, ledger: Ledger, add: Callable[..., list[int]]) -> None:
    add(letter(1, key=JANE))
    outbox = Outbox(source="/test")
    engine = sa.create_engine(parse_url(url), poolclass=sa.NullPool)
    with engine.begin() as connection:
        later = datetime.now(UTC) + timedelta(days=1)
        for key in (JANE, b"joe"):
            outbox.publish(connection, Message(topic="later", key=key, payload=b"1", type="n"), deliver_at=later)
            outbox.publish(connection, Message(topic="soon", key=key, payload=b"1", type="n"))
        connection.exec_driver_sql(
            ledger.names.render(
                "INSERT INTO {inbox} (consumer_group, message_id, outcome, topic, result) "
                "VALUES ('billing', 'm-1', 'handled', 'orders', '7'), ('other', 'm-1', 'handled', 'orders', '7')",
                "sqlite" if ledger.sqlite else "postgres",
            )
        )
    for dry_run in (True, False):
        told = forget(ledger, Whose(key=JANE), actor="ann", dry_run=dry_run)
        assert (told.scheduled, told.logged, told.results) == (1, {"soon": 1}, 1)
        assert told.logged_at is not None
        assert abs(told.logged_at - datetime.now(UTC)) < timedelta(minutes=5)


def test_a_subject_is_the_header_or_the_key_without_one(
    url: str, ledger: Ledger, add: Callable[..., list[int]]
) -> None:
    subject = [("ce_subject", b'j"ane')]
    [by_header] = add(letter(1, key=b"1", headers=subject))
    [by_key] = add(letter(2, key=b'j"ane'))
    [neither] = add(letter(3, key=b'j"ane', headers=[("ce_subject", b"joe")]))
    [other] = add(letter(4, key=b"1", headers=[("x", b'j"ane')]))
    hold(url, 11, "retry", key=b"1", headers=subject)
    hold(url, 12, "retry", key=b"1", headers=[("x", b'j"ane')])
    told = forget(ledger, Whose(subject='j"ane'), actor="ann")
    assert (told.letters, told.held) == (2, 1)
    gone = {each_.id for each_ in all_of(ledger) if each_.forgotten_at is not None}
    assert gone == {by_header, by_key}
    assert not gone & {neither, other}


def test_a_group_or_topic_narrows_what_is_forgotten(url: str, ledger: Ledger, add: Callable[..., list[int]]) -> None:
    [here, there] = add(letter(1, key=JANE), letter(2, key=JANE, topic="elsewhere.dlq"))
    park(url, JANE)
    told = forget(ledger, Whose(key=JANE, topic="elsewhere.dlq"), actor="ann")
    assert (told.letters, told.parked) == (1, 0)
    assert one(ledger, there).forgotten_at is not None
    told = forget(ledger, Whose(key=JANE, group="billing"), actor="ann")
    assert (told.letters, told.parked, told.parked_left) == (1, 0, 1)
    assert one(ledger, here).forgotten_at is not None
    with pytest.raises(UsageError, match="either a key or a subject"):
        Whose()


def test_what_was_forgotten_does_not_come_back_by_an_import(ledger: Ledger, add: Callable[..., list[int]]) -> None:
    add(letter(1, key=JANE))
    file = exported(ledger, "jsonl")
    forget(ledger, Whose(key=JANE), actor="ann")
    done = import_letters(ledger, file, actor="ann")
    assert (done.imported, done.skipped) == (0, 1)
    assert count(ledger, Filter()) == {"discarded": 1}
    assert find(ledger, Filter(key=JANE)).letters == []
