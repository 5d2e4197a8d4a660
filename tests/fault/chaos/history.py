"""What happened, by everybody's own books, and whether it is what was promised."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from .services import HOPELESS, ORDERS, PAYMENTS

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Order:
    """A row of the application, and so a message that has to arrive. ``number`` counts up for each key."""

    id: str
    key: str
    number: int
    kind: str

    @property
    def refused(self) -> bool:
        """Kafka takes the first one of such a key only after the repair, so the later ones wait behind it."""
        return self.key.startswith("huge-")


@dataclass(frozen=True, slots=True)
class Record:
    """A record of a topic. ``replayed``: an operator sent it back."""

    partition: int
    id: str
    key: str
    number: int
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Effect:
    """What a handler left behind."""

    service: str
    id: str
    key: str
    number: int


@dataclass
class History:
    """``acknowledged`` and ``undone``: message ids of transactions of which COMMIT, or ROLLBACK, returned.

    ``logged``: ids in the outbox by topic; ``payments``: the orders of those published by billing. ``records``: by
    topic, each partition in its order. ``effects``: in the order in which they were committed, for each key.
    ``dead``: how many dead letters were written of each order; ``letters``: how many the ledger has. ``parked``: ids.
    ``possible_duplicates``: what P4 allows.
    """

    acknowledged: set[str] = field(default_factory=set)
    undone: set[str] = field(default_factory=set)
    orders: list[Order] = field(default_factory=list)
    logged: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    payments: Counter[str] = field(default_factory=Counter)
    records: dict[str, list[Record]] = field(default_factory=lambda: defaultdict(list))
    effects: list[Effect] = field(default_factory=list)
    dead: Counter[str] = field(default_factory=Counter)
    letters: Counter[str] = field(default_factory=Counter)
    parked: set[str] = field(default_factory=set)
    possible_duplicates: int = 0

    @property
    def duplicates(self) -> int:
        """Records of a message that the topics have besides its first, replays not counted."""
        count = 0
        for records in self.records.values():
            ids = Counter(record.id for record in records if not record.replayed)
            count += sum(ids.values()) - len(ids)
        return count


def check(history: History, *, repaired: bool) -> list[str]:
    """What is not as promised, a sentence each. ``repaired``: after replay and retry, when nothing may be missing."""
    return [*_books(history), *_kafka(history, repaired), *_services(history, repaired), *_failures(history, repaired)]


def _books(history: History) -> Iterator[str]:
    """P1: a message is in the log if, and only if, its transaction committed."""
    ids = {order.id for order in history.orders}
    yield from _tell("committed, and gone from the database", history.acknowledged - ids)
    yield from _tell("rolled back, and in the database", history.undone & ids)
    logged = Counter(history.logged[ORDERS])
    yield from _tell("P1: committed, and not in the log", ids - logged.keys())
    yield from _tell("P1: in the log without its transaction", logged.keys() - ids)


def _kafka(history: History, repaired: bool) -> Iterator[str]:
    """P2, P3, P4: everything arrives, by key in order, and seldom twice."""
    by_id = {order.id: order for order in history.orders}
    waiting = set() if repaired else {order.id for order in history.orders if order.refused}
    yield from _tell("P2: parked, and should not be", history.parked - waiting)
    yield from _tell("P2: refused, and not parked", waiting - history.parked)
    for topic in (ORDERS, PAYMENTS):
        arrived = {record.id for record in history.records[topic]}
        yield from _tell(f"P2: lost on its way to {topic}", set(history.logged[topic]) - arrived - waiting)
        yield from _tell(f"in {topic}, and nobody wrote it", arrived - set(history.logged[topic]))
        late = {order.id for order in history.orders if order.kind in HOPELESS} if topic == PAYMENTS else set()
        skip = {(by_id[each].key, by_id[each].number) for each in late}
        yield from _tell(f"P3: out of order in {topic}", _inversions(history.records[topic], skip))
    if history.duplicates > history.possible_duplicates:
        told = f"{history.duplicates} records more than messages, {history.possible_duplicates} allowed"
        yield f"P4: too many duplicates: {told}"


def _inversions(records: Sequence[Record], skip: set[tuple[str, int]]) -> Iterator[str]:
    """First arrivals of a key that come after a higher number of it, or in two partitions."""
    seen: set[str] = set()
    last: dict[str, int] = {}
    partitions: dict[str, int] = {}
    for record in records:
        if record.id in seen or (record.key, record.number) in skip:
            continue
        seen.add(record.id)
        if record.number <= last.get(record.key, 0):
            yield f"{record.key}/{record.number} after {record.key}/{last[record.key]}"
        if partitions.setdefault(record.key, record.partition) != record.partition:
            yield f"{record.key} in partitions {partitions[record.key]} and {record.partition}"
        last[record.key] = max(record.number, last.get(record.key, 0))


def _services(history: History, repaired: bool) -> Iterator[str]:
    """P5, P3: each order has one effect of each service, by key in order; what was repaired comes later."""
    missing_yet = {order.id for order in history.orders if not repaired and (order.kind in HOPELESS or order.refused)}
    late = {order.id for order in history.orders if order.kind in HOPELESS}
    expected = {order.id for order in history.orders} - missing_yet
    yield from _tell("P5: published twice by its handler", _several(history.payments))
    for service in ("billing", "shipping"):
        effects = [effect for effect in history.effects if effect.service == service]
        counts = Counter(effect.id for effect in effects)
        yield from _tell(f"P2: never handled by {service}", expected - counts.keys())
        yield from _tell(f"P5: effects of {service} that should not be", counts.keys() - expected)
        yield from _tell(f"P5: applied twice by {service}", _several(counts))
        yield from _tell(f"P3: applied out of order by {service}", _disordered(effects, late))


def _disordered(effects: Iterable[Effect], late: set[str]) -> Iterator[str]:
    last: dict[str, int] = {}
    for effect in effects:
        if effect.id not in late:
            if effect.number <= last.get(effect.key, 0):
                yield f"{effect.key}/{effect.number} after {effect.key}/{last[effect.key]}"
            last[effect.key] = effect.number


def _failures(history: History, repaired: bool) -> Iterator[str]:
    """P7, P8: one dead letter for each order that can't be handled, and none for any other."""
    hopeless = {order.id for order in history.orders if order.kind in HOPELESS}
    for where, counts in (("the log", history.dead), *((("the ledger", history.letters),) if repaired else ())):
        yield from _tell(f"P7: no dead letter in {where}", hopeless - counts.keys())
        yield from _tell(f"P8: a dead letter in {where} of what is well", counts.keys() - hopeless)
        yield from _tell(f"P7: several dead letters in {where}", _several(counts))


def _several(counts: Counter[str]) -> Iterator[str]:
    return (each for each, count in counts.items() if count > 1)


def _tell(what: str, which: Iterable[str]) -> Iterator[str]:
    found = sorted(which)
    if found:
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        yield f"{what}: {', '.join(found[:_SHOWN])}{more}"


def totals(history: History) -> Mapping[str, int]:
    """The figures of a run."""
    kinds = Counter(order.kind for order in history.orders)
    return {
        "orders committed": len(history.orders),
        "transactions rolled back, messages": len(history.undone),
        "of the orders flaky": kinds["flaky"],
        "of the orders hopeless": sum(kinds[kind] for kind in HOPELESS),
        "of the orders refused by Kafka": kinds["huge"],
        "records in the topics": sum(map(len, history.records.values())),
        "duplicates in the topics": history.duplicates,
        "duplicates allowed": history.possible_duplicates,
        "effects": len(history.effects),
        "dead letters": history.dead.total(),
    }
