"""Two hosts with all services, one PostgreSQL and one Kafka, and everything between them that can break."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import psycopg
from sqlalchemy.engine import make_url

from postroom.messaging.kafka import connect
from postroom.messaging.ports import Kafka
from postroom.outbox import schema
from postroom.testing import kafka_broker, postgres_server
from postroom.testing.kafka import Broker
from postroom.testing.postgres import Postgres
from postroom.testing.process import supervised
from postroom.testing.proxy import TcpProxy
from postroom.testing.server import free_ports

from . import services
from .keeper import Daemon, Keeper
from .machine import Clock, Disk, disk, temporary_files_on
from .schedule import HOSTS

PARTITIONS = 6
#: Of a relay; a kill may double so many.
WINDOW = 500
ROOT = Path(__file__).parents[3]

_SETTINGS = {
    "POSTROOM_RELAY__LEASE_SECONDS": "3",
    "POSTROOM_RELAY__BATCH_SIZE": "100",
    "POSTROOM_RELAY__MAX_IN_FLIGHT": str(WINDOW),
    "POSTROOM_RELAY__BACKOFF_CAP_SECONDS": "2",
    "POSTROOM_RELAY__STEP_ASIDE_SECONDS": "4",
    "POSTROOM_INBOX__BACKOFF_CAP_SECONDS": "2",
    "POSTROOM_INBOX__OUTAGE_CAP_SECONDS": "2",
    "POSTROOM_INBOX__CONCURRENCY": "3",
    "POSTROOM_LOG_FORMAT": "json",
    "PYTHONDONTWRITEBYTECODE": "1",
}
#: The group notices soon that a member is gone.
_SESSION = {
    "kafka-python": {"session_timeout_ms": 6_000, "heartbeat_interval_ms": 1_000},
    "confluent-kafka": {"session.timeout.ms": 6_000, "heartbeat.interval.ms": 1_000},
}
_TOPIC_BYTES = 40_000


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is made of besides its faults. ``clients``: Kafka's, of each host.

    ``membership``: how the consumers share their partitions. ``pace``: seconds between two transactions of a host, on
    average; ``killer_every``: seconds between two orders that end the process which handles them.
    """

    seed: int
    clients: tuple[str, str]
    membership: Literal["dynamic", "static", "cooperative"]
    batch_size: int
    pace: float
    killer_every: float


@dataclass(frozen=True)
class Host:
    """Where processes run, with a way of its own to each server, a clock, and a Kafka client."""

    name: str
    client: str
    clock: Clock
    postgres: TcpProxy
    kafka: TcpProxy
    url: str


@dataclass
class Cluster:
    """All of it. ``url`` and ``kafka`` lead straight to the servers, past what is broken."""

    folder: Path
    postgres: Postgres
    broker: Broker
    url: str
    kafka: Kafka
    keeper: Keeper
    hosts: Mapping[str, Host]
    disks: Mapping[str, Disk]
    server_clock: Clock
    plan: Plan

    def link(self, name: str) -> TcpProxy:
        """By its name in a schedule: "a to kafka"."""
        host, _, server = name.partition(" to ")
        found: TcpProxy = getattr(self.hosts[host], server)
        return found

    def start_services(self) -> None:
        """Relay, both services and an application on each host."""
        for name in self.hosts:
            for service in ("relay", "billing", "shipping"):
                self.start(f"{service}-{name}")
        for name in self.hosts:
            self.start(f"writer-{name}")

    def start(self, name: str) -> None:
        """Start one by its name in a schedule; an extra member, -x, is a guest on the first host."""
        service, _, place = name.partition("-")
        host = self.hosts.get(place) or self.hosts[HOSTS[0]]
        environment = {
            **os.environ,
            **_SETTINGS,
            **host.clock.environment,
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "src", Path(__file__).with_name("faked")))),
            "POSTROOM_DATABASE_URL": host.url,
            "POSTROOM_KAFKA_BOOTSTRAP_SERVERS": host.kafka.address,
            "POSTROOM_KAFKA_CLIENT": host.client,
            "POSTROOM_HEALTH_ADDRESS": f"127.0.0.1:{free_ports(1)[0]}",
        }
        allowed: frozenset[int] = frozenset()
        if service == "writer":
            command = ["-m", "tests.fault.chaos.writer", json.dumps(self._told(name, host))]
        elif service == "relay":
            command = ["-m", "postroom.cli.main", "relay", "run"]
        else:
            command = ["-m", "postroom.cli.main", "inbox", "run", f"{services.__name__}:{service}"]
            environment["POSTROOM_KAFKA_OPTIONS"] = json.dumps(_SESSION[host.client])
            environment["POSTROOM_INBOX__BATCH_SIZE"] = str(self.plan.batch_size)
            if self.plan.membership == "static":
                environment["POSTROOM_INBOX__INSTANCE_ID"] = name
            elif self.plan.membership == "cooperative":
                environment["POSTROOM_INBOX__COOPERATIVE"] = "true"
            allowed = frozenset({services.KILLER_CODE}) if service == "billing" else allowed
        log = self.folder / f"{name}.log"
        self.keeper.add(Daemon(name, [sys.executable, *command], environment, log, allowed))

    def _told(self, name: str, host: Host) -> dict[str, object]:
        return {
            "name": name,
            "url": host.url,
            "journal": str(self.folder / f"{name}.journal"),
            "seed": self.plan.seed,
            "pace": self.plan.pace,
            "killer_every": self.plan.killer_every if host.name == HOSTS[0] else float("inf"),
        }

    def heal(self) -> None:
        """Whatever was broken works again. Blocks until the servers answer."""
        for each in self.disks.values():
            each.free()
        for clock in (self.server_clock, *(host.clock for host in self.hosts.values())):
            clock.set("+0")
        for server in (self.postgres, self.broker):
            server.resume()
            server.start()
        for host in self.hosts.values():
            host.postgres.restore()
            host.kafka.restore()


@contextmanager
def cluster(folder: Path, plan: Plan, *, small_disks: bool) -> Iterator[Cluster]:
    """All servers, with tables and topics, and no service yet. ``folder`` gets logs and journals."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(_scratch()))
        disks = {name: stack.enter_context(disk(scratch / name, small=small_disks)) for name in ("postgres", "kafka")}
        clocks = {name: Clock(scratch / f"clock-{name}") for name in (*HOSTS, "postgres")}
        with temporary_files_on(disks["postgres"]):
            postgres = stack.enter_context(postgres_server(environment=clocks["postgres"].environment))
        with temporary_files_on(disks["kafka"]):
            broker = stack.enter_context(kafka_broker(proxies=len(HOSTS)))
        url = postgres.create_database()
        _set_up(url)
        kafka = connect(broker.options_for())
        _make_topics(kafka)
        target = make_url(url)
        hosts = {}
        for number, (name, client) in enumerate(zip(HOSTS, plan.clients, strict=True)):
            proxy = stack.enter_context(TcpProxy(str(target.host), int(target.port or 5432)))
            behind = target.set(port=proxy.port).render_as_string(hide_password=False)
            hosts[name] = Host(name, client, clocks[name], proxy, broker.proxies[number], behind)
        supervisor = stack.enter_context(supervised())
        keeper = Keeper(supervisor)
        stack.callback(keeper.close)
        yield Cluster(
            folder,
            postgres,
            broker,
            url,
            kafka,
            keeper,
            hosts,
            disks,
            clocks["postgres"],
            plan,
        )


@contextmanager
def _scratch() -> Iterator[str]:
    with TemporaryDirectory(prefix="postroom-chaos-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # PostgreSQL may run as another user
        yield folder


def _set_up(url: str) -> None:
    schema.upgrade(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(services.SCHEMA)
        for setting in ("max_wal_size = '128MB'", "min_wal_size = '80MB'", "deadlock_timeout = '200ms'"):
            connection.execute(f"ALTER SYSTEM SET {setting}".encode())
        connection.execute("SELECT pg_reload_conf()")


def _make_topics(kafka: Kafka) -> None:
    with closing(kafka.topics()) as topics:
        topics.create(services.ORDERS, PARTITIONS, 1, {"max.message.bytes": str(_TOPIC_BYTES)})
        topics.create(services.PAYMENTS, PARTITIONS, 1, {})
