"""An application under fire: it places orders, and writes down what its database told it of each transaction.

Run as a process with one argument, JSON: ``url``, ``journal`` (a file that it appends to), ``name``, ``seed``, ``pace``
(seconds between two transactions, on average) and ``killer_every`` (seconds). It ends at SIGTERM.

The numbers of a key count up under the lock of its row, so they say in which order the transactions serialised. Many
take their transaction id before that lock, or hold it for a while; some are rolled back, in whole or to a savepoint.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

import psycopg
import sqlalchemy as sa
from sqlalchemy.orm import Session

from postroom.messaging.errors import PostroomError
from postroom.outbox import Outbox

from .services import OrderPlaced

KEYS = 40
KINDS = {"plain": 92.0, "flaky": 4.0, "poison": 1.5, "broken": 1.0, "slow": 1.5}
#: More than the topic takes, so that Kafka refuses it for good.
HUGE = 60_000

_NUMBER = (
    "INSERT INTO account (key, last) VALUES (:key, 1)"
    " ON CONFLICT (key) DO UPDATE SET last = account.last + 1 RETURNING last"
)
_SENT = "INSERT INTO sent (id, key, number, kind) VALUES (:id, :key, :number, :kind)"
_AFTER_FAILURE = 0.2


class Writer:
    """One thread that places orders until it is told to stop."""

    def __init__(self, told: dict[str, str], stop: Event) -> None:
        self._outbox = Outbox(source=f"/{told['name']}")
        self._name = told["name"]
        self._rng = random.Random(f"{told['name']} {told['seed']} {os.getpid()}")
        self._pace = float(told["pace"])
        self._killer_every = float(told["killer_every"])
        self._killer_at = time.monotonic() + self._killer_every / 4
        self._journal = os.open(told["journal"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._engine = sa.create_engine(
            told["url"].replace("postgresql://", "postgresql+psycopg://"),
            pool_size=1,
            connect_args={"connect_timeout": 3},
        )
        self._stop = stop
        self._huge = 0

    def run(self) -> None:
        while not self._stop.wait(self._rng.expovariate(1 / self._pace)):
            try:
                self._place()
            except (sa.exc.DBAPIError, psycopg.Error, PostroomError):
                # What became of the transaction is not known here; the tables tell it later.
                self._engine.dispose()
                self._stop.wait(_AFTER_FAILURE)

    def _place(self) -> None:
        done: list[str] = []
        undone: list[str] = []
        with Session(self._engine) as session:
            if self._rng.random() < 0.5:
                session.execute(sa.text("SELECT pg_current_xact_id()"))
            for key, kind in self._orders():
                if self._rng.random() < 0.03:
                    with _rolled_back(session):
                        undone.append(self._order(session, key, "plain"))
                done.append(self._order(session, key, kind))
            if self._rng.random() < 0.02:
                self._stop.wait(self._rng.uniform(0.1, 1.0))
            if self._rng.random() < 0.04:  # the customer changed his mind
                session.rollback()
                done, undone = [], [*undone, *done]
            session.commit()
        self._write(done=done, undone=undone)

    def _orders(self) -> Iterator[tuple[str, str]]:
        """Keys and kinds of one transaction; by key, so that no two wait for each other."""
        if self._rng.random() < 0.002:
            self._huge += 1
            key = f"huge-{self._name}-{os.getpid()}-{self._huge}"
            yield key, "huge"
            yield key, "plain"
            return
        for number in sorted(self._rng.sample(range(KEYS), self._rng.choice((1, 1, 2, 3)))):
            [kind] = self._rng.choices([*KINDS], [*KINDS.values()])
            if time.monotonic() > self._killer_at:
                self._killer_at += self._killer_every
                kind = "killer"
            yield f"key-{number:02d}", kind

    def _order(self, session: Session, key: str, kind: str) -> str:
        """Count up, publish, and note it, by one of the ways to do so."""
        number = session.execute(sa.text(_NUMBER), {"key": key}).scalar_one()
        order = OrderPlaced(account=key, number=number, kind=kind, padding="x" * HUGE if kind == "huge" else "")
        target: Session | sa.Connection = session
        if key.endswith(("1", "4", "7")):  # one way for a key: those of a session come last in their transaction
            target = session.connection()
        message_id = str(self._outbox.publish(target, order))
        session.execute(sa.text(_SENT), {"id": message_id, "key": key, "number": number, "kind": kind})
        return message_id

    def _write(self, **told: list[str]) -> None:
        os.write(self._journal, json.dumps(told).encode() + b"\n")


@contextmanager
def _rolled_back(session: Session) -> Iterator[None]:
    savepoint = session.begin_nested()
    yield
    savepoint.rollback()


def main() -> None:
    stop = Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    Writer(json.loads(sys.argv[1]), stop).run()


if __name__ == "__main__":
    main()
