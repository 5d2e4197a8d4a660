"""How long a message takes from its commit to Kafka, while others come at a fixed rate."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from confluent_kafka import Consumer

from .drain import Ask, bench
from .process import MeasuredProcess, MeasurementError, tail
from .topic import payload

_ROOT = Path(__file__).parents[1]
_WARM_UP_SECONDS = 3
_WARM_UP_WITHIN = 60.0
_GRACE_SECONDS = 25.0
_KEPT_UP = 0.95
"""Of the rate; with less, the figures would be those of another load."""


def latency(ask: Ask) -> dict[str, Any]:
    """``ask.n`` messages at ``ask.rate`` a second, each inserted and committed by itself.

    The broker and all processes are warm: the same rate went before. Three times per message: from before its
    INSERT to LogAppendTime (which has whole milliseconds, rounded down), from after its commit to the same, and
    from before its INSERT to a consumer.
    """
    with bench(ask) as made:
        made.system.before_relay(made.connection)
        relay = made.start()
        consumer = made.topic.consumer(**{"fetch.wait.max.ms": 100, "fetch.min.bytes": 1})
        try:
            warm_up = ask.rate * _WARM_UP_SECONDS
            with _writer(ask, made.topic.name, warm_up, ask.rate, "warm-up"):
                if len(_receive(consumer, relay, warm_up, _WARM_UP_WITHIN)) < warm_up:
                    raise MeasurementError(f"not even {warm_up} messages came within {_WARM_UP_WITHIN:.0f} s")
            relay.sample()
            cpu, began = relay.cpu_seconds, time.time()
            with _writer(ask, made.topic.name, ask.n, ask.rate, "load") as writer:
                received = _receive(consumer, relay, ask.n, ask.n / ask.rate + _GRACE_SECONDS)
                relay.sample()
                elapsed = time.time() - began
                writer.wait(_GRACE_SECONDS)
        finally:
            consumer.close()
        relay.require_running()
    written = json.loads((ask.work / "load.json").read_text())
    committed: list[float] = written["committed"]
    inserting: list[float] = written["inserting"]
    reached = ask.n / (max(committed) - min(inserting))
    if reached < _KEPT_UP * ask.rate:
        raise MeasurementError(f"the writers reached only {reached:.0f} of {ask.rate} messages a second")
    return {
        "n": ask.n,
        "reached_rate": round(reached),
        "lost": ask.n - len(received),
        "insert_to_append_ms": _quantiles([append - inserting[one] for one, (append, _) in received.items()]),
        "commit_to_append_ms": _quantiles([append - committed[one] for one, (append, _) in received.items()]),
        "insert_to_consumer_ms": _quantiles([seen - inserting[one] for one, (_, seen) in received.items()]),
        "insert_ms": _quantiles([after - before for before, after in zip(inserting, committed, strict=True)]),
        "late_ms": _quantiles(written["late"]),
        "cpu_percent": round(100 * (relay.cpu_seconds - cpu) / elapsed, 1),
        "peak_mb": round(relay.peak_mb, 1),
    }


class _Writer:
    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process, self._log = process, log

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def wait(self, seconds: float) -> None:
        """Until it has ended well. Raises MeasurementError."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise MeasurementError(f"the writer could not keep up for {seconds:.0f} s") from None
        if code:
            raise MeasurementError(f"the writer ended with {code}: {tail(self._log)}")


def _writer(ask: Ask, topic: str, count: int, rate: int, name: str) -> _Writer:
    log = ask.work / f"{name}.log"
    target = ask.work / f"{name}.json"
    arguments = [ask.system, topic, str(count), str(rate), name, str(target)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.writer", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=_ROOT,
        )
    return _Writer(process, log)


def _receive(consumer: Consumer, relay: MeasuredProcess, count: int, seconds: float) -> dict[int, tuple[float, float]]:
    """By id, when the broker appended it and when we saw it. Less than ``count`` when the time is over."""
    received: dict[int, tuple[float, float]] = {}
    deadline = time.time() + seconds
    while len(received) < count and time.time() < deadline:
        message = consumer.poll(0.5)
        if message is None or message.error() is not None:
            relay.require_running()
            continue
        seen = time.time()
        received.setdefault(payload(message)["id"], (message.timestamp()[1] / 1000, seen))
    if not received:
        raise MeasurementError(f"no message came within {seconds:.0f} s")
    return received


def _quantiles(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    last = len(ordered) - 1
    places = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {name: round(ordered[min(last, int(len(ordered) * share))] * 1000, 2) for name, share in places.items()}
