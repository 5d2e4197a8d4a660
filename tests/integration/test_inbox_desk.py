"""What operators do to inboxes happens whole or not at all, beside members that work and operators that do the same."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest
import sqlalchemy as sa

from postroom.inbox.desk import Desk, Held, Wanted
from postroom.messaging.errors import SchemaMissing, UsageError
from postroom.outbox import Names, schema
from postroom.outbox.database import open_store, parse_url
from postroom.outbox.sqlite import stored_moment
from postroom.outbox.write import run_query
from postroom.testing.postgres import Database

NAMES = Names(schema="mail", tables={"inbox": "seen", "inbox_held": "waiting", "inbox_action": "done"})


@pytest.fixture(params=["postgres", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Tables with other names than usual."""
    made = f"sqlite:///{tmp_path / 'app.db'}"
    if request.param == "postgres":
        made = request.getfixturevalue("postroom_postgres").url
    schema.upgrade(made, NAMES)
    return made


@pytest.fixture
def desks() -> Iterator[Callable[[str], Desk]]:
    with ExitStack() as stack:

        def make(url: str) -> Desk:
            desk = Desk(url, NAMES)
            stack.callback(desk.close)
            return desk

        yield make


@pytest.fixture
def desk(url: str, desks: Callable[[str], Desk]) -> Desk:
    return desks(url)


def run(url: str, query: str, **params: Any) -> int:
    engine = sa.create_engine(parse_url(url), poolclass=sa.NullPool)
    with engine.begin() as connection:
        return run_query(connection, query, params, NAMES)


def hold(url: str, offset: int, state: str = "retry", group: str = "g", key: bytes | None = b"k") -> None:
    now = datetime.now(UTC)
    moments: dict[str, Any] = {"timestamp": now, "first_failed_at": now, "next_attempt_at": now + timedelta(hours=1)}
    if url.startswith("sqlite"):
        moments = {name: stored_moment(moment) for name, moment in moments.items()}
    place = {"group": group, "topic": "t", "partition": 0, "offset": offset, "message_id": f"m-{offset}"}
    record = {"key": key, "type": None, "payload": None, "headers": "[]", "handler": ""}
    run(url, "hold", **place, **record, **moments, state=state, attempts=2, error="ValueError")


def held(desk: Desk) -> list[Held]:
    return desk.held(Wanted(), 100)


def test_a_change_and_its_record_are_one(url: str, desk: Desk) -> None:
    hold(url, 1)
    [before] = held(desk)
    engine = sa.create_engine(parse_url(url), poolclass=sa.NullPool)
    with engine.begin() as connection:
        dialect = "sqlite" if engine.dialect.name == "sqlite" else "postgres"
        connection.exec_driver_sql(NAMES.render("DROP TABLE {inbox_action}", dialect))
    for change in (
        lambda: desk.retry([before.id], "ann"),
        lambda: desk.discard([before.id], "ann"),
        lambda: desk.pause("g", "", "x", "ann"),
        lambda: desk.set_policy("g", None, {"rate": 5.0}, "ann"),
    ):
        with pytest.raises(SchemaMissing):
            change()
    assert held(desk) == [before]
    assert desk.controls() == []
    assert run(url, "inbox_close", **before.closing()) == 1, "it was not closed either"


def test_only_what_waits_for_its_attempt_is_retried_and_the_groups_concerned_look(url: str, desk: Desk) -> None:
    hold(url, 1)
    hold(url, 2, "behind")
    hold(url, 3, "dead-letter", key=b"other")
    hold(url, 4, group="h")
    hold(url, 5, group="quiet")
    ids = [each.id for each in held(desk)]
    assert desk.retry(ids[:4], "ann", "why not") == 2
    assert desk.retry([], "ann") == 0
    assert [(each.state, each.attempts) for each in held(desk)] == [
        ("retry", 0),
        ("behind", 2),
        ("dead-letter", 2),
        ("retry", 0),
        ("retry", 2),
    ]
    assert {each.group: each.revision for each in desk.controls()} == {"g": 1, "h": 1}
    found = desk.actions(10)
    assert sorted((each.actor, each.group, each.subject, each.message_id, each.reason) for each in found) == [
        ("ann", "g", "topic:t", "m-1", "why not"),
        ("ann", "h", "topic:t", "m-4", "why not"),
    ]


def test_a_key_that_is_nul_or_no_text_is_found(url: str, desk: Desk) -> None:
    for offset, key in ((1, b""), (2, b"\x00\xff"), (3, b"\x00\xff"), (4, None), (5, None)):
        hold(url, offset, key=key)
    rows = held(desk)
    assert [[each.offset for each in desk.behind(row, 10)] for row in rows] == [[], [3], [], [], []]
    assert [each.offset for each in desk.held(Wanted(key=b""), 10)] == [1]
    assert desk.count(Wanted(key=b"\x00\xff")) == {"retry": 2}


def test_a_discard_and_the_handler_that_succeeds_meanwhile_do_not_deadlock(
    postroom_postgres: Database, desks: Callable[[str], Desk], eventually: Callable[..., None]
) -> None:
    """The handler's transaction closes the message first, and then removes what is held."""
    url = postroom_postgres.url
    schema.upgrade(url, NAMES)
    desk = desks(url)
    hold(url, 1)
    [row] = held(desk)
    changed: list[int] = []
    engine = sa.create_engine(parse_url(url), poolclass=sa.NullPool)
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    with engine.connect() as handler, engine.connect() as watch:
        assert run_query(handler, "inbox_close", {**row.closing(), "outcome": "handled"}, NAMES) == 1
        discarding = Thread(target=lambda: changed.append(desk.discard([row.id], "ann")))
        discarding.start()
        eventually(lambda: bool(watch.exec_driver_sql(waiting).scalar_one()), "the discard waits for the handler")
        run_query(handler, "held_done", {"id": row.id}, NAMES)
        handler.commit()
        discarding.join(60)
        [outcome] = watch.exec_driver_sql("SELECT outcome FROM mail.seen").scalars()
    assert changed == [0]
    assert outcome == "handled"
    assert desk.actions(10) == []
    assert desk.controls() == [], "there is nothing to look at"


def test_what_two_operators_change_of_a_policy_at_once_both_holds(url: str, desks: Callable[[str], Desk]) -> None:
    names = ("attempts", "concurrency", "rate", "timeout")
    start = Barrier(len(names))

    def operate(name: str) -> None:
        desk = desks(url)
        desk.groups()
        start.wait(30)
        for value in range(1, 11):
            desk.set_policy("g", None, {name: value}, name)

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(operate, names))
    desk = desks(url)
    [control] = desk.controls("g")
    assert control.policy == {"attempts": 10, "concurrency": 10, "rate": 10.0, "timeout": 10.0}
    assert len(desk.actions(100, action="policy")) == 40


def test_a_policy_is_read_when_nobody_changes_it_any_more(
    postroom_postgres: Database, desks: Callable[[str], Desk], eventually: Callable[..., None]
) -> None:
    url = postroom_postgres.url
    schema.upgrade(url, NAMES)
    desk = desks(url)
    desk.set_policy("g", None, {"rate": 1.0}, "ann")
    engine = sa.create_engine(parse_url(url), poolclass=sa.NullPool)
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    with engine.connect() as other, engine.connect() as watch:
        other.exec_driver_sql("SELECT 1 FROM mail.inbox_control FOR UPDATE")
        setting = Thread(target=lambda: desk.set_policy("g", None, {"attempts": 3}, "ann"))
        setting.start()
        eventually(lambda: bool(watch.exec_driver_sql(waiting).scalar_one()), "it waits for the other operator")
        other.exec_driver_sql("UPDATE mail.inbox_control SET policy = '{\"rate\": 2}'")
        other.commit()
        setting.join(60)
    assert [each.policy for each in desk.controls("g")] == [{"rate": 2, "attempts": 3}]


def test_a_policy_that_cannot_be_changes_nothing(url: str, desk: Desk) -> None:
    desk.set_policy("g", "shop.charge", {"immediate": 3}, "ann")
    for handler, wanted in ((None, {"attempts": 2}), (None, {"attempts": 0}), ("x", {"speed": 1})):
        with pytest.raises(UsageError):
            desk.set_policy("g", handler, wanted, "ann")
    assert {each.subject: each.policy for each in desk.controls() if each.policy} == {
        "handler:shop.charge": {"immediate": 3}
    }
    assert desk.groups() == ["g"]
    assert desk.reset_policy("typo", None, [], "ann") == ({}, {})
    assert desk.groups() == ["g"], "to ask is not to be known"


def test_groups_are_all_that_the_tables_know(url: str, desk: Desk) -> None:
    for number, group in enumerate(("c", "a", "b", "a")):
        closing = {"outcome": "handled", "topic": "t", "handler": None, "attempts": 1, "replays": 0}
        run(url, "inbox_close", group=group, message_id=f"m-{number}", **closing)
    hold(url, 1, group="held")
    place = {"group": "begun", "topic": "t", "partition": 0}
    run(url, "attempt_begin", **place, member="m", first_offset=0, last_offset=1)
    desk.pause("paused", "", "x", "ann")
    assert desk.groups() == ["a", "b", "begun", "c", "held", "paused"]


def test_retention_works_under_other_names(url: str, desk: Desk) -> None:
    store = open_store(url, NAMES)
    store.add_inbox_partitions()
    run(
        url, "inbox_close", group="g", message_id="x", outcome="handled", topic="t", handler=None, attempts=1, replays=0
    )
    assert list(store.prune_inbox(timedelta(hours=1), dry_run=True)) == []
    [part] = store.prune_inbox(timedelta(hours=-1), dry_run=True)[-1:]
    assert (part.part, part.messages) == (("rows" if url.startswith("sqlite") else "seen_other"), 1)
    gone = store.prune_inbox(timedelta(hours=-1), actor="ann")
    assert gone[-1] == part
    assert [each.action for each in desk.actions(50)] == ["prune"] * len(gone)
    store.close()
