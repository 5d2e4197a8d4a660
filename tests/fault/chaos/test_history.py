"""The checker finds each way to break a promise; one that can't find anything would prove nothing."""

from collections.abc import Callable

import pytest

from .history import Effect, History, Order, Record, check
from .services import ORDERS, PAYMENTS

SERVICES = ("billing", "shipping")
#: Of what is missing until the repair.
KEYS = {"k2": ("k", 2), "h1": ("huge-1", 1), "h2": ("huge-1", 2)}


def well() -> History:
    """Three orders of a key, of which the second is poison; and two of which Kafka refuses the first."""
    history = History()
    kinds = ("plain", "poison", "flaky")
    history.orders = [Order(f"k{number}", "k", number, kind) for number, kind in enumerate(kinds, 1)]
    history.orders += [Order("h1", "huge-1", 1, "huge"), Order("h2", "huge-1", 2, "plain")]
    history.acknowledged = {order.id for order in history.orders}
    history.undone = {"never"}
    history.logged[ORDERS] = [order.id for order in history.orders]
    history.logged[PAYMENTS] = ["p1", "p3"]
    history.payments.update(["k1", "k3"])
    history.records[ORDERS] = [Record(0, f"k{number}", "k", number) for number in (1, 2, 3)]
    history.records[PAYMENTS] = [Record(0, "p1", "k", 1), Record(0, "p3", "k", 3)]
    history.effects = [Effect(service, f"k{number}", "k", number) for service in SERVICES for number in (1, 3)]
    history.dead["k2"] = 1
    history.parked = {"h1", "h2"}
    return history


def mended() -> History:
    """The same after the repair."""
    history = well()
    history.parked = set()
    history.letters["k2"] = 1
    history.records[ORDERS] += [
        Record(1, "h1", "huge-1", 1),
        Record(1, "h2", "huge-1", 2),
        Record(0, "k2", "k", 2, replayed=True),
    ]
    for order, place in KEYS.items():
        history.logged[PAYMENTS].append(f"p-{order}")
        history.payments[order] += 1
        history.records[PAYMENTS].append(Record(0 if order == "k2" else 1, f"p-{order}", *place))
        history.effects += [Effect(service, order, *place) for service in SERVICES]
    return history


def test_what_is_as_promised_is_no_finding() -> None:
    assert check(well(), repaired=False) == []
    assert check(mended(), repaired=True) == []


def test_what_is_dead_or_parked_is_missing_after_the_repair() -> None:
    found = check(well(), repaired=True)
    assert any("never handled by billing: h1, h2, k2" in each for each in found)
    assert any("lost on its way to orders: h1, h2" in each for each in found)


def lose_a_record(history: History) -> None:
    history.records[ORDERS].pop(0)


def lose_a_row(history: History) -> None:
    history.orders.pop(0)


def publish_what_was_rolled_back(history: History) -> None:
    history.logged[ORDERS].append("never")


def forget_to_publish(history: History) -> None:
    history.logged[ORDERS].remove("k3")


def keep_what_was_rolled_back(history: History) -> None:
    history.orders.append(Order("never", "n", 1, "plain"))


def double_a_record(history: History) -> None:
    history.records[ORDERS].append(history.records[ORDERS][0])


def swap_records(history: History) -> None:
    history.records[ORDERS].reverse()


def split_a_key(history: History) -> None:
    history.records[ORDERS][2] = Record(3, "k3", "k", 3)


def make_a_record_up(history: History) -> None:
    history.records[ORDERS].append(Record(0, "nobody", "k", 9))


def lose_an_effect(history: History) -> None:
    history.effects.pop(0)


def double_an_effect(history: History) -> None:
    history.effects.append(history.effects[0])


def swap_effects(history: History) -> None:
    history.effects.reverse()


def run_poison(history: History) -> None:
    history.effects.append(Effect("billing", "k2", "k", 2))


def publish_twice(history: History) -> None:
    history.payments["k1"] += 1


def lose_a_dead_letter(history: History) -> None:
    history.dead.clear()


def double_a_dead_letter(history: History) -> None:
    history.dead["k2"] += 1


def bury_what_is_well(history: History) -> None:
    history.dead["k1"] += 1


def forget_to_park(history: History) -> None:
    history.parked.remove("h2")


def park_what_is_well(history: History) -> None:
    history.parked.add("k1")


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lose_a_record, "P2: lost on its way to orders: k1"),
        (lose_a_row, "committed, and gone from the database: k1"),
        (publish_what_was_rolled_back, "P1: in the log without its transaction: never"),
        (forget_to_publish, "P1: committed, and not in the log: k3"),
        (keep_what_was_rolled_back, "rolled back, and in the database: never"),
        (double_a_record, "P4: too many duplicates"),
        (swap_records, "P3: out of order in orders"),
        (split_a_key, "in partitions 0 and 3"),
        (make_a_record_up, "in orders, and nobody wrote it: nobody"),
        (lose_an_effect, "P2: never handled by billing: k1"),
        (double_an_effect, "P5: applied twice by billing: k1"),
        (swap_effects, "P3: applied out of order by billing"),
        (run_poison, "P5: effects of billing that should not be: k2"),
        (publish_twice, "P5: published twice by its handler: k1"),
        (lose_a_dead_letter, "P7: no dead letter in the log: k2"),
        (double_a_dead_letter, "P7: several dead letters in the log: k2"),
        (bury_what_is_well, "P8: a dead letter in the log of what is well: k1"),
        (forget_to_park, "P2: refused, and not parked: h2"),
        (park_what_is_well, "P2: parked, and should not be: k1"),
    ],
)
def test_each_harm_is_found(harm: Callable[[History], None], told: str) -> None:
    history = well()
    harm(history)
    assert any(told in finding for finding in check(history, repaired=False)), check(history, repaired=False)
