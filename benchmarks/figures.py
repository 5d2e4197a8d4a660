"""Reading the records: figures by system, ratios within a round, and the goals that they are held against."""

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .systems import OURS, family

Record = Mapping[str, Any]

KAFKA_PYTHON, CONFLUENT = OURS
RAW_KAFKA_PYTHON = ("raw/kafka-python", "raw/kafka-python,partition")
RAW_CONFLUENT = ("raw/confluent,callback", "raw/confluent")
DEBEZIUM = ("debezium/", "debezium/tuned")
_FLAT = 1.1


class Results:
    """The records of all cases, those that failed left out."""

    def __init__(self, cases: Mapping[str, Any]) -> None:
        self._cases = cases

    def records(self, case: str, system: str | None = None, **fields: Any) -> list[Record]:
        """Of a case; of a system, and with these values, where they are given."""
        found = self._cases.get(case, {}).get("records", [])
        return [
            record
            for record in found
            if "failed" not in record
            and system in (None, record["system"])
            and all(record.get(name) == value for name, value in fields.items())
        ]

    def values(self, case: str, system: str, field: str, **fields: Any) -> list[float]:
        """One figure, over the rounds; ``a.b`` is b within a."""
        outer, _, inner = field.partition(".")
        found = [record.get(outer) for record in self.records(case, system, **fields)]
        return [value[inner] if inner else value for value in found if value is not None]

    def ratios(self, case: str, above: Callable[[Record], bool], below: Callable[[Record], bool]) -> list[float]:
        """Of the rates, within each round; where several are ``below``, the fastest of them."""
        rounds: dict[int, tuple[list[float], list[float]]] = {}
        for record in self.records(case):
            tops, bottoms = rounds.setdefault(record["round"], ([], []))
            if record.get("rate"):
                if above(record):
                    tops.append(record["rate"])
                if below(record):
                    bottoms.append(record["rate"])
        return [max(tops) / max(bottoms) for tops, bottoms in rounds.values() if tops and bottoms]

    def against(self, above: str, *below: str) -> list[float]:
        """Drain rates of one system over the fastest of others."""
        return self.ratios("drain", lambda r: r["system"] == above, lambda r: r["system"] in below)

    def consumed(self, above: str, below: str) -> list[float]:
        """Inbox rates of one system over another."""
        return self.ratios("inbox", lambda r: r["system"] == above, lambda r: r["system"] == below)

    def grown(self, system: str, size: int, base: int) -> list[float]:
        """The rate with ``size`` messages waiting over that with ``base``."""
        return self.ratios(
            "growth",
            lambda r: (r["system"], r["n"]) == (system, size),
            lambda r: (r["system"], r["n"]) == (system, base),
        )

    def sizes(self) -> list[int]:
        """The backlogs that were measured."""
        return sorted({record["n"] for record in self.records("growth")})

    def doubled(self, system: str) -> list[float]:
        """The rate of two relays over that of one."""
        return self.ratios(
            "two",
            lambda r: (r["system"], r["instances"]) == (system, 2),
            lambda r: (r["system"], r["instances"]) == (system, 1),
        )

    def beside(self, system: str) -> list[float]:
        """The rate beside an idle transaction over that without."""
        return [r["rate_beside"] / r["rate_alone"] for r in self.records("idle-transaction", system) if r["rate_alone"]]


def late_growth(record: Record) -> float | None:
    """The memory of the last quarter of a drain over that of its second quarter: 1 is flat."""
    memory = [mb for _, mb in record.get("memory", [])]
    quarter = len(memory) // 4
    if quarter == 0:
        return None
    return float(statistics.median(memory[-quarter:]) / statistics.median(memory[quarter : 2 * quarter]))


@dataclass(frozen=True)
class Goal:
    """Met when the median is within ``limit``; with ``always``, when every value is."""

    text: str
    values: list[float]
    limit: float
    at_least: bool = False
    always: bool = False

    def met(self) -> bool | None:
        """None: it was not measured."""
        if not self.values:
            return None
        held = self.values if self.always else [statistics.median(self.values)]
        return all(value >= self.limit if self.at_least else value <= self.limit for value in held)


def goals(results: Results, window: int) -> list[Goal]:
    """What the project set out to reach. ``window``: how many messages a relay has in flight at most."""
    found = [
        Goal(
            "drain, kafka-python: of its raw producer (the faster way to use it)",
            results.against(KAFKA_PYTHON, *RAW_KAFKA_PYTHON),
            0.85,
            at_least=True,
        ),
        Goal(
            "drain, kafka-python: times Debezium (the faster setting)",
            results.against(KAFKA_PYTHON, *DEBEZIUM),
            1.7,
            at_least=True,
        ),
        Goal(
            "drain, confluent: times Debezium (the faster setting)",
            results.against(CONFLUENT, *DEBEZIUM),
            6.0,
            at_least=True,
        ),
        Goal(
            "drain, confluent: times the naive loop",
            results.against(CONFLUENT, "naive/confluent"),
            1.0,
            at_least=True,
        ),
    ]
    for system in OURS:
        client = system.partition("/")[2]
        found += [
            Goal(
                f"{client}: INSERT to broker, p50, ms", results.values("latency", system, "insert_to_append_ms.p50"), 2
            ),
            Goal(
                f"{client}: INSERT to broker, p99, ms", results.values("latency", system, "insert_to_append_ms.p99"), 8
            ),
            *_kill_goals(results, f"{system},lease=10", client, window),
            Goal(f"{client}: two relays over one, where cores allow", results.doubled(system), 1.5, at_least=True),
            *_growth_goals(results, system, client),
            Goal(f"{client}: rate beside an idle transaction over without", results.beside(system), 0.9, at_least=True),
            Goal(f"{client}: idle relay, % of a core", results.values("idle", system, "cpu_percent"), 1),
        ]
    found.append(
        Goal("publish and commit over commit alone", results.values("publish", "postroom/", "ratio"), 1.2),
    )
    return [*found, *_inbox_goals(results), *_dead_letter_goals(results)]


def _inbox_goals(results: Results) -> Iterable[Goal]:
    alone, batched = "postroom/inbox,1", "postroom/inbox,100"
    yield Goal("inbox, batched: of the loop by hand", results.consumed(batched, "raw/inbox,100"), 0.7, at_least=True)
    yield Goal("inbox, batched: times one transaction a message", results.consumed(batched, alone), 5, at_least=True)
    poisoned = results.consumed(f"{batched},poisoned", batched)
    yield Goal("inbox: other keys' rate beside one that always fails", poisoned, 0.95, at_least=True)
    wrong: list[float] = [
        record["lost"] + record["twice"] + record["out_of_order"]
        for record in results.records("inbox")
        if family(record["system"]) == "postroom"
    ]
    yield Goal("inbox: effects lost, twice or out of order", wrong, 0, always=True)


def _dead_letter_goals(results: Results) -> Iterable[Goal]:
    records = results.records("dead-letters")
    ledgers = [record for record in records if "bare_rate" in record]
    replays = [record for record in records if "relay_rate" in record]
    taken: list[float] = [record["rate"] / record["bare_rate"] for record in ledgers]
    yield Goal("dead letters into the ledger: of a bare consumer", taken, 0.5, at_least=True)
    yield Goal("dead letters into the ledger: peak MB", [record["peak_mb"] for record in ledgers], 150, always=True)
    yield Goal("a page of a list, ms", [record["list_ms"] for record in ledgers], 200)
    yield Goal("statistics by failure, ms", [record["stats_ms"] for record in ledgers], 2_000)
    sent: list[float] = [record["rate"] / record["relay_rate"] for record in replays]
    yield Goal("a replay: of the relay's rate", sent, 0.7, at_least=True)
    wrong: list[float] = [record["lost"] + record["twice"] + record["out_of_order"] for record in replays]
    yield Goal("a replay: lost, twice or out of order", wrong, 0, always=True)


def _kill_goals(results: Results, system: str, client: str, window: int) -> Iterable[Goal]:
    records = results.records("kill", system)
    per_kill: list[float] = [count for record in records for count in record["duplicates_per_kill"]]
    broken: list[float] = [record["lost"] + record["out_of_order"] for record in records]
    yield Goal(f"{client}: lost or out of order after two SIGKILLs", broken, 0, always=True)
    yield Goal(f"{client}: duplicates per SIGKILL, at most one window", per_kill, window, always=True)


def _growth_goals(results: Results, system: str, client: str) -> Iterable[Goal]:
    sizes = results.sizes()
    if not sizes:
        yield Goal(f"{client}: memory and rate with a large backlog", [], 0)
        return
    largest = sizes[-1]
    records = results.records("growth", system, n=largest)
    peaks: list[float] = [record["peak_mb"] for record in records]
    late = [ratio for record in records if (ratio := late_growth(record)) is not None]
    yield Goal(f"{client}: peak memory draining {largest:,}, MB", peaks, 100, always=True)
    yield Goal(f"{client}: memory, last quarter of it over the second", late, _FLAT)
    for base in sorted({sizes[0], min(sizes, key=lambda size: abs(size - 100_000))} - {largest}):
        text = f"{client}: rate with {largest:,} waiting over {base:,}"
        yield Goal(text, results.grown(system, largest, base), 0.9, at_least=True)


def systems_of(records: Iterable[Record]) -> list[str]:
    """In the order in which they were measured first; ours before all."""
    names = list(dict.fromkeys(record["system"] for record in records))
    return sorted(names, key=lambda name: family(name) != "postroom")
