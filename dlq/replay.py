"""Replay: dead letters go back to their original topics, through the outbox.

    plan     which ones, frozen: what arrives later is not in it
    replay   in batches; each is one transaction that writes the messages into the outbox and an action for each
             dead letter. Under the topic's lock it leaves out what was replayed meanwhile.

So a replay that was interrupted, or that two operators run at once, replays each dead letter once: run it again,
and it does what is left. Observer steps, with their facts:

    planned     count, already, refused     what the plan holds
    replaying   topic, count                a batch is written, not committed
    replayed    topic, count, already       it is committed; ``already`` were replayed by somebody else meanwhile
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import NamedTuple

from ..messaging.errors import InvalidMessage
from ..messaging.message import check_topic
from ..messaging.observer import Observer, unobserved
from ..messaging.ports import TopicReader
from .families import is_copied
from .ledger import CLOSING, Action, Ledger
from .letter import DeadLetter, Place

MAX_REPLAYS = 3
BATCH = 500
_BATCH_BYTES = 8_000_000
_LOOK_UP = 1_000


class Planned(NamedTuple):
    """A dead letter of a plan, and where it goes. ``reason``: why it does not go there."""

    place: Place
    message_id: str
    target: str | None
    group: str | None
    written_at: datetime
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a replay does: to ``replay``, by place in the order of each partition; what it leaves out, and why.

    ``mark``: actions after this one count as done by somebody else meanwhile.
    """

    replay: Sequence[Planned]
    already: Sequence[Planned]
    refused: Sequence[Planned]
    mark: int


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of a plan. ``already``: replayed by somebody else meanwhile. ``gone``: no longer in the topic."""

    replayed: int
    already: int
    gone: Sequence[Place]


def make_plan(
    letters: Iterable[DeadLetter],
    ledger: Ledger,
    *,
    existing: Iterable[str],
    max_replays: int = MAX_REPLAYS,
    again: bool = False,
    limit: int | None = None,
    observer: Observer = unobserved,
) -> Plan:
    """Decide about each of ``letters``; only their places are kept.

    Refused are those that have no original topic among the ``existing`` ones, that hold no copy of the record,
    and that were replayed ``max_replays`` times: what fails again and again would go round for ever. With
    ``again``, those go too that were replayed or discarded before. ``limit``: no more than so many, the oldest.

    Raises what reading ``letters`` does, and DatabaseUnavailable.
    """
    known = frozenset(existing)
    mark = ledger.mark() if again else 0
    replay: list[Planned] = []
    already: list[Planned] = []
    refused: list[Planned] = []
    for chunk in _chunks(_decided(letters, known, max_replays)):
        done = {} if again else ledger.last_actions([each.place for each in chunk])
        for each in chunk:
            if is_done(done.get(each.place)):
                already.append(each)
            else:
                (replay if each.reason is None else refused).append(each)
    replay = _oldest(replay, limit)
    observer("planned", count=len(replay), already=len(already), refused=len(refused))
    return Plan(replay, already, refused, mark)


def run_plan(
    plan: Plan,
    reader: TopicReader,
    ledger: Ledger,
    *,
    actor: str,
    reason: str | None = None,
    batch: int = BATCH,
    observer: Observer = unobserved,
) -> Replayed:
    """Replay what ``plan`` says, ``batch`` in a transaction at the most. Blocks.

    What is committed stays, whatever is raised: DatabaseUnavailable, KafkaUnavailable, SchemaMissing,
    NotAuthorized. Make a new plan then, and run it.
    """
    replayed = already = 0
    gone: list[Place] = []
    for topic, planned in groupby(sorted(plan.replay, key=lambda each: each.place), key=lambda each: each.place.topic):
        missing = {each.place for each in planned}
        for letters in _batches(_reread(reader, topic, missing), batch):
            with ledger.locked(topic) as work:
                done = work.last_actions([letter.place for letter in letters])
                new = [letter for letter in letters if not is_done(done.get(letter.place), plan.mark)]
                if new:
                    work.replay(new, [letter.replayed() for letter in new], actor, reason)
                observer("replaying", topic=topic, count=len(new))
            replayed += len(new)
            already += len(letters) - len(new)
            observer("replayed", topic=topic, count=len(new), already=len(letters) - len(new))
        gone.extend(sorted(missing))
    return Replayed(replayed, already, gone)


def is_done(action: Action | None, mark: int = 0) -> bool:
    """Whether ``action`` closed the dead letter, after the one with the id ``mark``."""
    return action is not None and action.action in CLOSING and action.id > mark


def _decided(letters: Iterable[DeadLetter], existing: frozenset[str], max_replays: int) -> Iterator[Planned]:
    for letter in letters:
        yield Planned(
            letter.place,
            letter.message_id,
            letter.original_topic,
            letter.group,
            letter.timestamp,
            refusal(letter, existing, max_replays),
        )


def refusal(letter: DeadLetter, existing: frozenset[str], max_replays: int) -> str | None:
    """Why ``letter`` cannot be replayed, as a sentence; None where it can."""
    if no_way := _no_way_back(letter, existing):
        return no_way
    if not is_copied(letter.family, letter.key, letter.payload):
        return "It holds no copy of the record; set errors.deadletterqueue.copy.record.enable for its share group."
    if letter.replay_count >= max_replays:
        return f"It was replayed {letter.replay_count} times and failed again; repair the cause, raise --max-replays."
    return None


def _no_way_back(letter: DeadLetter, existing: frozenset[str]) -> str | None:
    topic = letter.original_topic
    if topic is None:
        return "Its original topic is unknown: none of its headers names it."
    try:
        check_topic(topic)
    except InvalidMessage as error:
        return f"Its original topic is unusable: {error}"
    if topic == letter.place.topic:
        return "Its original topic is the dead-letter topic itself."
    if topic not in existing:
        return f"Its original topic {topic!r} does not exist any more, or may not be seen by this user."
    return None


def _oldest(planned: Sequence[Planned], limit: int | None) -> list[Planned]:
    """The oldest ones, and of each partition the first ones, even where its timestamps go back."""
    if limit is None or len(planned) <= limit:
        return list(planned)
    latest: dict[tuple[str, int], datetime] = {}
    aged = []
    for each in planned:
        partition = each.place[:2]
        latest[partition] = max(latest.get(partition, each.written_at), each.written_at)
        aged.append((latest[partition], each.place, each))
    return [each for _, _, each in sorted(aged, key=lambda entry: entry[:2])[:limit]]


def _reread(reader: TopicReader, topic: str, missing: set[Place]) -> Iterator[DeadLetter]:
    """The dead letters at ``missing``, which is emptied along the way; what stays in it is gone."""
    starts: dict[int, int] = {}
    ends: Mapping[int, tuple[int, int]] = reader.offsets(topic)
    for place in missing:
        starts[place.partition] = min(starts.get(place.partition, place.offset), place.offset)
    starts = {number: starts.get(number, after_last) for number, (_, after_last) in ends.items()}
    for record in reader.read(topic, starts):
        place = Place(*record.partition, record.offset)
        if place in missing:
            missing.remove(place)
            yield DeadLetter.of(record)
            if not missing:
                return


def _batches(letters: Iterable[DeadLetter], size: int) -> Iterator[list[DeadLetter]]:
    batch: list[DeadLetter] = []
    weight = 0
    for letter in letters:
        batch.append(letter)
        weight += len(letter.payload or b"") + sum(len(value) for _, value in letter.headers)
        if len(batch) == size or weight >= _BATCH_BYTES:
            yield batch
            batch, weight = [], 0
    if batch:
        yield batch


def _chunks(planned: Iterable[Planned]) -> Iterator[list[Planned]]:
    by: dict[str, list[Planned]] = defaultdict(list)
    for each in planned:
        chunk = by[each.place.topic]
        chunk.append(each)
        if len(chunk) == _LOOK_UP:
            yield by.pop(each.place.topic)
    yield from by.values()
