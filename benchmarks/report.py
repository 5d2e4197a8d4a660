"""RESULTS.md out of results.json."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from postroom.relay import RelaySettings

from .figures import (
    CONFLUENT,
    DEBEZIUM,
    KAFKA_PYTHON,
    RAW_CONFLUENT,
    RAW_KAFKA_PYTHON,
    Record,
    Results,
    goals,
    late_growth,
    systems_of,
)
from .systems import OURS

_HEAD = """\
# Results

Written by `make bench`; [README.md](README.md) says what each case measures, and how to repeat it. Figures of several
rounds are given as min / **median** / max. A ratio is taken within a round, and then over the rounds.
"""


def window() -> int:
    """How many messages a relay has in flight at most, by its settings."""
    settings = RelaySettings()
    return int(getattr(settings, "max_in_flight", 4 * settings.batch_size))


def written(results: Mapping[str, Any]) -> str:
    """The whole page."""
    cases = results["cases"]
    figures = Results(cases)
    parts = [_HEAD, "## Where", _table(["", ""], results["machine"].items()), "## Goals", _goals(figures)]
    for name, render in _CASES.items():
        if name not in cases:
            continue
        case = cases[name]
        parts += [f"## {name}", f"`{case['command']}`, {case['date']}, load average after it {case['load']:.1f}."]
        parts += [render(figures), _left_out(case)]
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def _goals(figures: Results) -> str:
    words = {True: "met", False: "**missed**", None: "not measured"}
    rows = [
        [
            goal.text,
            f"{'≥' if goal.at_least else '≤'} {goal.limit:,g}",
            _spread(goal.values, ".2f" if goal.at_least or goal.limit <= 10 else ",.0f"),
            words[goal.met()],
        ]
        for goal in goals(figures, window())
    ]
    return _table(["goal", "limit", "measured", ""], rows)


def _drain(figures: Results) -> str:
    columns: list[tuple[str, str, str]] = [
        ("messages/s, 5 to 95 %", "rate", ",.0f"),
        ("messages/s, first to settled", "settled_rate", ",.0f"),
        ("CPU s", "cpu_seconds", ".1f"),
        ("peak MB", "peak_mb", ".0f"),
    ]
    compared = [
        (KAFKA_PYTHON, *RAW_KAFKA_PYTHON, "naive/kafkapython", *DEBEZIUM, "txoutbox/tuned", "faststream/tuned"),
        (CONFLUENT, *RAW_CONFLUENT, "naive/confluent", *DEBEZIUM),
    ]
    ratios = [
        [above, below, _spread(figures.against(above, below), ".2f")]
        for above, *others in compared
        for below in others
        if figures.against(above, below)
    ]
    return (
        _by_system(figures, "drain", columns, bytes_too=True)
        + "\n\n"
        + _table(["rate of", "over that of", "ratio"], ratios)
    )


def _latency(figures: Results) -> str:
    measured = {
        "INSERT to append": "insert_to_append_ms",
        "commit to append": "commit_to_append_ms",
        "INSERT to consumer": "insert_to_consumer_ms",
        "INSERT itself": "insert_ms",
    }
    rows = [
        [system, name, *(_spread(figures.values("latency", system, f"{field}.{at}"), ".1f") for at in _QUANTILES)]
        for system in systems_of(figures.records("latency"))
        for name, field in measured.items()
    ]
    cost = [
        [
            system,
            f"{max(figures.values('latency', system, 'lost')):.0f}",
            _spread(figures.values("latency", system, "reached_rate"), ",.0f"),
            _spread(figures.values("latency", system, "cpu_percent"), ".0f"),
            _spread(figures.values("latency", system, "late_ms.p99"), ".1f"),
        ]
        for system in systems_of(figures.records("latency"))
    ]
    return (
        _table(["system", "milliseconds from", *_QUANTILES], rows)
        + "\n\n"
        + _table(["system", "lost", "inserts/s reached", "CPU, % of a core", "writer late by, p99 ms"], cost)
    )


_QUANTILES = ("p50", "p99", "max")


def _publish(figures: Results) -> str:
    names = {"publish and commit, ms": "with_ms", "commit alone, ms": "without_ms", "ratio": "ratio"}
    rows = [[name, _spread(figures.values("publish", "postroom/", field), ".3f")] for name, field in names.items()]
    return _table(["", "min / median / max"], rows)


def _growth(figures: Results) -> str:
    rows = []
    for system in systems_of(figures.records("growth")):
        for size in figures.sizes():
            records = figures.records("growth", system, n=size)
            late = [ratio for record in records if (ratio := late_growth(record)) is not None]
            rows.append(
                [
                    system,
                    f"{size:,}",
                    _spread([record["rate"] for record in records if record["rate"]], ",.0f"),
                    _spread(figures.grown(system, size, figures.sizes()[0]), ".2f"),
                    _spread([record["peak_mb"] for record in records], ".0f"),
                    _spread(late, ".2f"),
                    *_counts(records),
                ]
            )
    heads = ["system", "waiting", "messages/s", "over the smallest", "peak MB", "memory, 4th over 2nd quarter"]
    return _table([*heads, *_COUNTS], rows)


def _idle_transaction(figures: Results) -> str:
    columns = [
        ("messages/s without", "rate_alone", ",.0f"),
        ("messages/s beside it", "rate_beside", ",.0f"),
        ("peak MB", "peak_mb", ".0f"),
    ]
    ratios = [[system, _spread(figures.beside(system), ".2f")] for system in OURS if figures.beside(system)]
    return _by_system(figures, "idle-transaction", columns) + "\n\n" + _table(["system", "ratio"], ratios)


def _two(figures: Results) -> str:
    rows = []
    for system in systems_of(figures.records("two")):
        for instances in (1, 2):
            records = figures.records("two", system, instances=instances)
            shares = ["+".join(map(str, record["shards"])) for record in records]
            rates = [record["rate"] for record in records if record["rate"]]
            ratio = _spread(figures.doubled(system), ".2f") if instances > 1 else ""
            told = [", ".join(dict.fromkeys(shares)), _spread(rates, ",.0f"), ratio]
            rows.append([system, str(instances), *told, *_counts(records)])
    return _table(["system", "relays", "shards", "messages/s", "over one", *_COUNTS], rows)


def _idle(figures: Results) -> str:
    return _by_system(
        figures, "idle", [("CPU, % of a core", "cpu_percent", ".2f"), ("peak MB", "peak_mb", ".0f")], counts=False
    )


def _kill(figures: Results) -> str:
    rows = []
    for system in systems_of(figures.records("kill")):
        records = figures.records("kill", system)
        again = "; ".join(", ".join(f"{count:,}" for count in record["duplicates_per_kill"]) for record in records)
        resumed = _spread([after for record in records for after in record["resumed_seconds"]], ".1f")
        killed = "; ".join(", ".join(f"{at:,}" for at in record["killed_at"]) for record in records)
        rows.append([system, f"{records[0]['n']:,}", killed, again, resumed, *_counts(records)])
    heads = ["system", "messages", "killed at", "duplicates after each", "went on after, s"]
    return _table([*heads, *_COUNTS], rows)


def _inbox(figures: Results) -> str:
    rows = [
        [
            system,
            f"{figures.records('inbox', system)[0]['n']:,}",
            _spread(figures.values("inbox", system, "rate"), ",.0f"),
            _spread(figures.values("inbox", system, "cpu_seconds"), ".1f"),
            _spread(figures.values("inbox", system, "peak_mb"), ".0f"),
            *(f"{sum(figures.values('inbox', system, field)):,.0f}" for field in ("lost", "twice", "out_of_order")),
        ]
        for system in systems_of(figures.records("inbox"))
    ]
    return _table(["system", "messages", "messages/s", "CPU s", "peak MB", "lost", "twice", "out of order"], rows)


def _dead_letters(figures: Results) -> str:
    records = figures.records("dead-letters")
    ledgers = [record for record in records if "bare_rate" in record]
    replays = [record for record in records if "relay_rate" in record]

    def spread(of: Sequence[Record], field: str, form: str = ",.0f") -> str:
        return _spread([record[field] for record in of], form)

    rows = [
        ["dead letters", f"{ledgers[0]['n']:,}" if ledgers else "-"],
        ["a bare consumer, records/s", spread(ledgers, "bare_rate")],
        ["into the ledger, records/s", spread(ledgers, "rate")],
        ["peak MB", spread(ledgers, "peak_mb")],
        ["a page of a list, ms (the slowest of six filters)", spread(ledgers, "list_ms")],
        ["a page of a list for a text that no letter has, ms", spread(ledgers, "list_nothing_ms")],
        ["statistics by failure, ms", spread(ledgers, "stats_ms")],
        ["statistics by key, ms", spread(ledgers, "stats_by_key_ms")],
        ["replayed", f"{replays[0]['n']:,}" if replays else "-"],
        ["the relay alone, messages/s", spread(replays, "relay_rate")],
        ["a replay, from its beginning to the last in Kafka, messages/s", spread(replays, "rate")],
        *(
            [f"{name.replace('_', ' ')} of a replay", spread(replays, name)]
            for name in ("lost", "twice", "out_of_order")
        ),
    ]
    return _table(["", ""], rows)


_CASES: dict[str, Callable[[Results], str]] = {
    "drain": _drain,
    "latency": _latency,
    "publish": _publish,
    "growth": _growth,
    "idle-transaction": _idle_transaction,
    "two": _two,
    "idle": _idle,
    "kill": _kill,
    "inbox": _inbox,
    "dead-letters": _dead_letters,
}
_COUNTS = ("lost", "duplicates", "out of order", "misplaced")


def _by_system(
    figures: Results,
    case: str,
    columns: Sequence[tuple[str, str, str]],
    *,
    counts: bool = True,
    bytes_too: bool = False,
) -> str:
    rows = []
    for system in systems_of(figures.records(case)):
        records = figures.records(case, system)
        row = [system, f"{records[0]['n']:,}"] if counts else [system]
        row += [_spread(figures.values(case, system, field), form) for _, field, form in columns]
        row += _counts(records) if counts else []
        row += [str(records[0]["bytes_per_record"])] if bytes_too else []
        rows.append(row)
    heads = ["system", *(["messages"] if counts else []), *(name for name, _, _ in columns)]
    return _table([*heads, *(_COUNTS if counts else ()), *(["bytes a record"] if bytes_too else [])], rows)


def _counts(records: Sequence[Record]) -> list[str]:
    """The worst round counts."""
    fields = ("lost", "duplicates", "out_of_order", "misplaced")
    return [f"{max(record[field] for record in records):,}" for field in fields] if records else ["-"] * len(fields)


def _left_out(case: Mapping[str, Any]) -> str:
    lines = [f"* not measured: `{name}`: {why}" for name, why in case["skipped"].items()]
    lines += [
        f"* failed: `{record['system']}`, round {record['round']}: {' '.join(record['failed'].split())}"
        for record in case["records"]
        if "failed" in record
    ]
    return "\n".join(lines)


def _spread(values: Sequence[float], form: str) -> str:
    if not values:
        return "-"
    lowest, middle, highest = min(values), statistics.median(values), max(values)
    if len(values) == 1:
        return f"**{middle:{form}}**"
    return f"{lowest:{form}} / **{middle:{form}}** / {highest:{form}}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
