"""What every log store guarantees to operators: pauses, limits, parked messages, retention, and a record of it all."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from postroom.outbox import Message, Outbox
from postroom.outbox.audit import Action
from postroom.outbox.log import Holds, LogReader, LogStore, Refusal

OUTBOX = Outbox(source="/test")
ALL = frozenset(range(256))
Readers = Callable[..., LogReader]
Recorded = Callable[[], list[Action]]


def publish(store: LogStore, *payloads: str, key: str | None = "k", topic: str = "t") -> None:
    messages = [Message(topic=topic, key=key, payload=text.encode(), type="x") for text in payloads]
    store.append([OUTBOX.entry(message) for message in messages])


def park(
    store: LogStore, reader: LogReader, errors: dict[str, str | None], *, by_topic: bool = False
) -> dict[str, int]:
    """Read all and park those named; the positions of all."""
    positions: dict[str, int] = {}
    while not (batch := reader.read(100)).caught_up:
        texts = {(row.payload or b"").decode(): row for row in batch.rows}
        positions |= {text: row.position for text, row in texts.items()}
        refusals = [
            Refusal(row, errors[text], by_topic and errors[text] is None)
            for text, row in texts.items()
            if text in errors
        ]
        reader.settle([batch], refusals)
    return positions


def test_a_pause_is_told_to_relays_with_its_reason_until_it_is_over(store: LogStore, readers: Readers) -> None:
    assert store.control().paused is None
    assert store.pause(None, "kafka upgrade", "ann") is True
    assert store.pause("orders", "wrong prices", "bob") is True
    control = readers(store).claim().control

    assert (control.paused, dict(control.topics)) == ("kafka upgrade", {"orders": "wrong prices"})
    assert store.control() == control
    assert store.resume(None, "ann") is True
    assert store.resume("orders", "bob") is True
    assert (store.control().paused, dict(store.control().topics)) == (None, {})
    assert store.control().revision > control.revision, "relays look after what waited"


def test_pauses_and_limits_that_are_so_already_change_and_record_nothing(store: LogStore, recorded: Recorded) -> None:
    assert [store.pause("t", "why", "ann"), store.pause("t", "why", "bob")] == [True, False]
    assert store.pause("t", "why else", "bob") is True
    assert [store.resume("t", "ann"), store.resume("t", "bob"), store.resume("never", "bob")] == [True, False, False]
    assert store.resume(None, "bob") is False
    assert [store.limit(100.0, None, "ann"), store.limit(100.0, None, "bob")] == [True, False]
    assert (store.control().rate, store.control().batch_size) == (100.0, None)
    assert store.limit(None, 50, "ann") is True
    assert (store.control().rate, store.control().batch_size) == (None, 50)
    assert store.limit(None, None, "ann") is True

    assert [(each.actor, each.action, each.topic, each.reason) for each in recorded()] == [
        ("ann", "pause", "t", "why"),
        ("bob", "pause", "t", "why else"),
        ("ann", "resume", "t", None),
        ("ann", "limit", None, "rate 100, batch size none"),
        ("ann", "limit", None, "rate none, batch size 50"),
        ("ann", "limit", None, "rate none, batch size none"),
    ]


def test_what_waits_for_its_topic_is_told_apart_and_not_released_before_it_goes_on(
    store: LogStore, readers: Readers
) -> None:
    reader = readers(store)
    store.pause("t", "broken", "ann")
    publish(store, "1", "2")
    publish(store, "3", key=None)
    positions = park(store, reader, {"1": None, "2": None, "3": None}, by_topic=True)

    assert [(each.row.position, each.error, each.by_topic) for each in store.parked()] == [
        (positions[text], None, True) for text in "123"
    ]
    assert reader.holds() == Holds(frozenset(), frozenset({"t"}))
    assert not store.releasable(ALL)
    store.resume("t", "ann")
    assert reader.holds().topics == {"t"}, "later ones queue behind what still waits"
    assert [each.row.position for each in store.releasable(ALL)] == [positions[text] for text in "123"]
    store.unpark(list(positions.values()))
    assert reader.holds() == Holds()


def test_a_refused_message_holds_its_key_while_its_topic_goes_on(store: LogStore, readers: Readers) -> None:
    reader = readers(store)
    publish(store, "bad", "behind")
    publish(store, "other", key="o")
    park(store, reader, {"bad": "too large", "behind": None, "other": None}, by_topic=True)

    assert [(each.row.payload, each.by_topic) for each in store.releasable(ALL)] == [(b"other", True)]
    store.unpark([each.row.position for each in store.releasable(ALL)])
    assert reader.holds() == Holds(frozenset({("t", b"k")}))


def test_a_message_of_a_paused_topic_is_not_released_by_a_retry(store: LogStore, readers: Readers) -> None:
    reader = readers(store)
    publish(store, "bad")
    publish(store, "elsewhere", topic="u")
    positions = park(store, reader, {"bad": "e", "elsewhere": "e"})
    store.pause("t", "broken", "ann")
    store.request_retry(list(positions.values()))

    assert [each.row.topic for each in store.releasable(ALL)] == ["u"]
    store.resume("t", "ann")
    assert [each.row.topic for each in store.releasable(ALL)] == ["t", "u"]
    assert [each.row.topic for each in store.releasable(ALL, 1)] == ["t"]
    assert not store.releasable(frozenset())


def test_parked_messages_are_found_by_topic_key_and_kind(store: LogStore, readers: Readers) -> None:
    reader = readers(store)
    publish(store, "1", "2", key="a")
    publish(store, "3", key="b")
    publish(store, "4", key="a", topic="u")
    publish(store, "5", key=None)
    positions = park(store, reader, {"1": "e", "2": None, "3": "e", "4": "e", "5": "e"})

    def found(**filters: object) -> list[int]:
        return [each.row.position for each in store.parked(**filters)]  # type: ignore[arg-type]

    assert found() == sorted(positions.values())
    assert found(topic="t") == [positions[text] for text in "1235"]
    assert found(topic="t", key=b"a") == [positions["1"], positions["2"]]
    assert found(refused=True) == [positions[text] for text in "1345"]
    assert found(refused=False) == [positions["2"]]
    assert found(after=positions["2"], limit=2) == [positions["3"], positions["4"]]


def test_retries_and_discards_are_recorded_for_each_message(
    store: LogStore, readers: Readers, recorded: Recorded
) -> None:
    reader = readers(store)
    publish(store, "1", "2", key=None)
    positions = park(store, reader, {"1": "e", "2": "e"})
    first, second = positions["1"], positions["2"]
    ids = {each.row.position: each.row.id for each in store.parked()}

    assert store.request_retry([first, 999_999], "ann", "limit raised") == 1
    assert store.discard([second, second], "bob", "test data") == 1
    assert store.discard([second], "bob", "again") == 0
    store.unpark([first])
    assert [
        (each.actor, each.action, each.topic, each.position, each.message_id, each.messages, each.reason)
        for each in recorded()
    ] == [
        ("ann", "retry", "t", first, ids[first], 1, "limit raised"),
        ("bob", "discard", "t", second, ids[second], 1, "test data"),
    ]
    assert all(each.at is not None for each in recorded())


def test_copies_and_their_record_are_written_together(store: LogStore, readers: Readers, recorded: Recorded) -> None:
    def entry(text: str) -> list[object]:
        return [OUTBOX.entry(Message(topic="t", key="k", payload=text.encode(), type="x"))]

    action = Action("ann", "replay", "t", position=7, messages=1, reason="lost")
    id_ = store.append(entry("1"), action)  # type: ignore[arg-type]
    again = store.append(entry("2"), Action("ann", "replay", "t", position=9, messages=1, id=id_))  # type: ignore[arg-type]

    assert again == id_
    [only] = recorded()
    assert (only.id, only.position, only.messages, only.reason) == (id_, 9, 2, "lost")
    assert store.append(entry("3")) == 0  # type: ignore[arg-type]
    assert store.backlog().messages == 3
    assert len(recorded()) == 1


def test_nothing_is_dropped_that_is_not_settled_or_too_young(store: LogStore, readers: Readers) -> None:
    reader = readers(store)
    publish(store, "1", "2")
    assert list(store.prune(timedelta(0))) == []
    assert store.parts(timedelta(0))[-1].why in ("unsettled", "head")
    while not (batch := reader.read(10)).caught_up:
        reader.settle([batch])
    assert list(store.prune(timedelta(hours=1))) == []
    assert store.parts(timedelta(hours=1))[-1].why in ("young", "head")


@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_without_a_transaction_nobody_is_named(store: LogStore, seconds: float) -> None:
    publish(store, "1")
    assert list(store.open_transactions(seconds)) == []
