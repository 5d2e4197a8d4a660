"""The cases, and how large they are in the short form and in the full one.

Within a round the systems alternate; what is compared is the ratio within a round, since machines are noisy.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from .runner import Runner
from .systems import INBOX, INBOX_DISTURBED, OURS, RAW, family

_SLOW = 5
"""By how much fewer messages the slowest peer gets: it publishes one at a time."""
_KILL_FACTOR = {"postroom/confluent,lease=10": 5, "naive/confluent": 5}
"""By how much more messages the fast ones get: else all is over before the kill."""


@dataclass(frozen=True)
class Sizes:
    """``rounds`` of everything; ``n`` messages; the rest by case."""

    rounds: int
    n: int
    latency_seconds: int
    rate: int
    transactions: int
    growth: tuple[int, ...]
    idle_transaction_seconds: int
    idle_seconds: int
    letters: int
    every_peer: bool
    prefixes: tuple[str, ...] = ()
    """Only systems whose names begin so; empty: all."""

    def with_n(self, n: int) -> "Sizes":
        """Everything scaled to ``n`` messages."""
        growth = (*(size for size in self.growth if size < n), n)
        return replace(self, n=n, transactions=n, growth=growth, letters=n, latency_seconds=max(1, n // self.rate))


SHORT = Sizes(
    rounds=1,
    n=50_000,
    latency_seconds=10,
    rate=1_000,
    transactions=1_000,
    growth=(10_000, 100_000, 300_000),
    idle_transaction_seconds=15,
    idle_seconds=10,
    letters=100_000,
    every_peer=False,
)
FULL = Sizes(
    rounds=5,
    n=100_000,
    latency_seconds=20,
    rate=1_000,
    transactions=5_000,
    growth=(10_000, 100_000, 1_000_000, 3_000_000),
    idle_transaction_seconds=60,
    idle_seconds=20,
    letters=1_000_000,
    every_peer=True,
)

#: The last ones only in the full form.
_DRAIN_PEERS = ("naive/kafkapython", "naive/confluent", "debezium/", "debezium/tuned", "txoutbox/tuned")
_DRAIN_MORE = ("faststream/tuned",)
_LATENCY_PEERS = ("naive/kafkapython", "naive/confluent", "debezium/tuned")
_LATENCY_MORE = ("debezium/", "txoutbox/", "faststream/fast")
_KILL_PEERS = ("debezium/tuned,flush=1000",)
_KILL_MORE = (
    "debezium/",
    "naive/kafkapython",
    "naive/confluent",
    "txoutbox/tuned,lease=10",
    "faststream/tuned,lease=10",
)


def drain(runner: Runner, sizes: Sizes) -> None:
    """A backlog: ours, the client libraries alone, and the peers."""
    systems = _chosen(runner, sizes, [*OURS, *RAW], _DRAIN_PEERS, _DRAIN_MORE)
    for turn in _turns(sizes):
        for system in systems:
            runner.measure("drain", turn, system, "drain", n=_scaled(sizes.n, system))


def latency(runner: Runner, sizes: Sizes) -> None:
    """From commit to Kafka, at a fixed rate."""
    count = sizes.rate * sizes.latency_seconds
    systems = _chosen(runner, sizes, OURS, _LATENCY_PEERS, _LATENCY_MORE)
    for turn in _turns(sizes, 3):
        for system in systems:
            runner.measure("latency", turn, system, "latency", n=count, rate=sizes.rate)


def publish(runner: Runner, sizes: Sizes) -> None:
    """What publishing adds to the smallest transaction."""
    for turn in range(1, max(3, sizes.rounds) + 1):
        runner.measure("publish", turn, "postroom/", "publish", n=sizes.transactions)


def growth(runner: Runner, sizes: Sizes) -> None:
    """Whether rate and memory depend on how much waits."""
    for turn in _turns(sizes, 2):
        for system in _chosen(runner, sizes, OURS):
            for count in sizes.growth:
                runner.measure("growth", turn, system, "drain", n=count, memory=True, seconds=60 + count / 2_000)


def idle_transaction(runner: Runner, sizes: Sizes) -> None:
    """Whether a transaction that somebody left open slows the relay."""
    for turn in _turns(sizes, 3):
        for system in _chosen(runner, sizes, OURS):
            runner.measure(
                "idle-transaction", turn, system, "beside", n=sizes.n, seconds=sizes.idle_transaction_seconds
            )


def two(runner: Runner, sizes: Sizes) -> None:
    """Two relays against one."""
    for turn in _turns(sizes):
        for system in _chosen(runner, sizes, OURS):
            for instances in (1, 2):
                runner.measure("two", turn, system, "together", n=2 * sizes.n, instances=instances)


def idle(runner: Runner, sizes: Sizes) -> None:
    """What a relay costs that has nothing to do."""
    for turn in _turns(sizes, 3):
        for system in _chosen(runner, sizes, OURS):
            runner.measure("idle", turn, system, "idle", seconds=sizes.idle_seconds)


def kill(runner: Runner, sizes: Sizes) -> None:
    """Two SIGKILLs during a drain: what is lost, what comes twice, and in which order."""
    systems = _chosen(runner, sizes, [f"{name},lease=10" for name in OURS], _KILL_PEERS, _KILL_MORE)
    for turn in _turns(sizes, 3):
        for system in systems:
            count = _scaled(sizes.n, system) * _KILL_FACTOR.get(system, 1)
            runner.measure("kill", turn, system, "drain", n=count, kills=(0.3, 0.6), seconds=180)


#: Of the messages; one transaction each takes long.
_ONE_BY_ONE = 5


def inbox(runner: Runner, sizes: Sizes) -> None:
    """Consuming: ours against a loop written by hand, and what disturbs it."""
    for turn in _turns(sizes, 3):
        for system in (*INBOX, *INBOX_DISTURBED):
            if not sizes.prefixes or system.startswith(sizes.prefixes):
                one_by_one = system.split(",")[1] == "1"
                runner.measure("inbox", turn, system, "inbox", n=sizes.n // (_ONE_BY_ONE if one_by_one else 1))


def dead_letters(runner: Runner, sizes: Sizes) -> None:
    """The desk: its ledger brought up to date, lists and statistics of it, a replay."""
    for turn in _turns(sizes, 3):
        runner.measure(
            "dead-letters", turn, "postroom/ledger", "ledger", n=sizes.letters, seconds=60 + sizes.letters / 500
        )
        runner.measure("dead-letters", turn, OURS[0], "replay", n=sizes.n, seconds=300)


CASES: dict[str, Callable[[Runner, Sizes], None]] = {
    "drain": drain,
    "latency": latency,
    "publish": publish,
    "growth": growth,
    "idle-transaction": idle_transaction,
    "two": two,
    "idle": idle,
    "kill": kill,
    "inbox": inbox,
    "dead-letters": dead_letters,
}


def _turns(sizes: Sizes, most: int | None = None) -> range:
    return range(1, min(sizes.rounds, most or sizes.rounds) + 1)


def _chosen(
    runner: Runner, sizes: Sizes, ours: Iterable[str], peers: Iterable[str] = (), more: Iterable[str] = ()
) -> list[str]:
    names = [*ours, *peers, *(more if sizes.every_peer else ())]
    return runner.available([name for name in names if not sizes.prefixes or name.startswith(sizes.prefixes)])


def _scaled(count: int, system: str) -> int:
    return count // _SLOW if family(system) == "faststream" else count
