"""Carries out a schedule: each fault in a thread of its own, from its time on and for as long as it lasts."""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import Event
from typing import Any, cast

import psycopg

from postroom.outbox import Names, Outbox
from postroom.outbox.write import write_psycopg
from postroom.testing.proxy import Direction
from postroom.testing.server import Server, ServerUnavailableError

from .cluster import Cluster
from .schedule import SERVERS, Fault
from .services import OrderPlaced

Tell = Callable[[str], None]

_WORKERS = 16
#: How often a server that does not come up, for instance since its disk is just being freed, is started again.
_STARTS = 5


class Nemesis:
    """``tell`` hears of each fault when it begins."""

    def __init__(self, cluster: Cluster, tell: Tell) -> None:
        self._cluster = cluster
        self._tell = tell
        self._stop = Event()
        self._late = 0
        self.done: list[Fault] = []

    def run(self, schedule: Sequence[Fault]) -> None:
        """Blocks until the last fault is over, and for good measure until everything works again."""
        began = time.monotonic()
        with ThreadPoolExecutor(_WORKERS, thread_name_prefix="nemesis") as pool:
            last: dict[str, Future[None]] = {}
            for fault in schedule:
                self._stop.wait(max(0.0, began + fault.at - time.monotonic()))
                before = last.get(fault.resource)
                last[fault.resource] = pool.submit(self._do, fault, before)
        for future in last.values():
            future.result()

    def _do(self, fault: Fault, before: "Future[None] | None") -> None:
        if before is not None:
            before.result()  # one at a time for each thing, also where the one before took longer than planned
        self._tell(str(fault))
        self.done.append(fault)
        with _HARM[fault.kind](self, fault):
            self._stop.wait(fault.seconds)

    @contextmanager
    def _signal(self, fault: Fault) -> Iterator[None]:
        self._cluster.keeper.send(fault.target, signal.SIGKILL if fault.kind == "kill" else signal.SIGTERM)
        yield

    @contextmanager
    def _freeze(self, fault: Fault) -> Iterator[None]:
        self._cluster.keeper.send(fault.target, signal.SIGSTOP)
        yield
        self._cluster.keeper.send(fault.target, signal.SIGCONT)

    @contextmanager
    def _join(self, fault: Fault) -> Iterator[None]:
        self._cluster.start(fault.target)
        yield
        self._cluster.keeper.retire(fault.target)

    @contextmanager
    def _server(self, fault: Fault) -> Iterator[None]:
        server = self._named(fault.target)
        if fault.kind == "hang":
            server.pause()
            yield
            server.resume()
            return
        (server.kill if fault.kind == "crash" else server.stop)()
        yield
        _start(server)

    @contextmanager
    def _link(self, fault: Fault) -> Iterator[None]:
        proxy = self._cluster.link(fault.target)
        if fault.kind == "cut":
            proxy.cut()
        elif fault.kind == "delay":
            proxy.delay(float(fault.detail))
        else:
            proxy.freeze(cast("Direction", fault.detail))
        yield
        proxy.restore()

    @contextmanager
    def _disconnect(self, _: Fault) -> Iterator[None]:
        with suppress(psycopg.OperationalError), self._straight() as connection:
            others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            connection.execute(f"{others} AND backend_type = 'client backend'".encode())
        yield

    @contextmanager
    def _late_commit(self, fault: Fault) -> Iterator[None]:
        """A transaction that takes its place in the log, and commits when many later ones are long published."""
        with suppress(psycopg.Error), self._straight() as connection:
            connection.autocommit = False
            self._late += 1
            order = OrderPlaced(account=f"late-{self._late}", number=1, kind="plain")
            entry = Outbox(source="/late").entry(order)
            write_psycopg(connection, [entry], Names())
            connection.execute(
                "INSERT INTO sent (id, key, number, kind) VALUES (%s, %s, 1, 'plain')", (entry.id, order.account)
            )
            self._stop.wait(fault.seconds)
            (connection.commit if fault.detail == "commit" else connection.rollback)()
        yield

    @contextmanager
    def _disk(self, fault: Fault) -> Iterator[None]:
        disk = self._cluster.disks[fault.target]
        disk.fill()
        yield
        disk.free()
        _start(self._named(fault.target))  # it may have ended for want of room

    @contextmanager
    def _clock(self, fault: Fault) -> Iterator[None]:
        host = self._cluster.hosts.get(fault.target)
        clock = host.clock if host else self._cluster.server_clock
        clock.set(fault.detail)
        yield
        clock.set("+0")

    def _named(self, server: str) -> Server:
        return self._cluster.broker if server == SERVERS[0] else self._cluster.postgres

    def _straight(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self._cluster.url, autocommit=True, connect_timeout=3)


_HARM: dict[str, Callable[[Nemesis, Fault], Any]] = {
    "kill": Nemesis._signal,
    "end": Nemesis._signal,
    "freeze": Nemesis._freeze,
    "join": Nemesis._join,
    "crash": Nemesis._server,
    "restart": Nemesis._server,
    "hang": Nemesis._server,
    "cut": Nemesis._link,
    "half-open": Nemesis._link,
    "delay": Nemesis._link,
    "disconnect all": Nemesis._disconnect,
    "late commit": Nemesis._late_commit,
    "disk full": Nemesis._disk,
    "clock": Nemesis._clock,
}


def _start(server: Server) -> None:
    for left in reversed(range(_STARTS)):
        try:
            server.start()
        except ServerUnavailableError:
            if not left:
                raise
        else:
            return
