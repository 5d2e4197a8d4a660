"""What is published: 1,000 keys in random order, a sequence number per key, bodies of about 300 bytes.

The same as in the peers' ``common.py``, so that all systems carry the same.
"""

import random
import time
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

KEYS = 1_000
PARTITIONS = 6

_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789      "
_random = random.Random(7)
_PADDING = ["".join(_random.choice(_ALPHABET) for _ in range(205)) for _ in range(997)]


class Row(NamedTuple):
    """``sequence`` counts within the key, so that a reader can tell the order."""

    id: int
    key: str
    sequence: int
    body: str


def body(number: int, key: str, sequence: int, at: float) -> str:
    """The payload; ``at`` is the writer's clock."""
    return f'{{"id": {number}, "key": "{key}", "seq": {sequence}, "ts": {at:.6f}, "pad": "{_PADDING[number % 997]}"}}'


class Workload:
    """Rows without end: each ``take`` goes on where the last one stopped."""

    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self._sequences: Counter[str] = Counter()
        self.taken = 0

    def take(self, count: int) -> Iterator[Row]:
        """The next ``count`` rows."""
        now = time.time()
        for _ in range(count):
            key = f"key-{self._random.randrange(KEYS):04d}"
            self._sequences[key] += 1
            number, self.taken = self.taken, self.taken + 1
            yield Row(number, key, self._sequences[key], body(number, key, self._sequences[key], now))
