"""A real Kafka broker for tests and trials, by whatever this machine has; else a mock of one."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from os import environ
from pathlib import Path
from typing import Any

from ..messaging.kafka import Compression, KafkaOptions
from . import kafka_maven
from .container import ContainerControl, running_container
from .kafka_probe import is_ready
from .process import ProcessControl, supervised
from .proxy import TcpProxy
from .server import (
    ControlUnsupportedError,
    Server,
    ServerUnavailableError,
    Source,
    Unmanaged,
    first_available,
    free_ports,
    wait_until_ready,
)

IMAGE = f"apache/kafka:{kafka_maven.KAFKA_VERSION}"
ADDRESS_VARIABLE = "POSTROOM_KAFKA_BOOTSTRAP_SERVERS"
SOURCE_VARIABLE = "POSTROOM_TESTING_KAFKA"

_ENVIRONMENT_SECONDS = 10.0
_MOCK_ANNOUNCEMENT = "bootstrap servers: "


@dataclass(frozen=True)
class Broker(Server):
    """A Kafka broker. ``client_config`` are the options that a kafka-python client needs besides the address.

    ``options_for`` says how either client reaches it. ``is_mock``: librdkafka's mock cluster, with the limits
    that ``postroom.testing.kafka_mock`` tells; it can be stopped, but not started again, since its log and its
    port are gone. Each of ``proxies`` is between the broker and who comes ``through`` it; ``proxy`` is the first one.
    """

    bootstrap_servers: str
    is_mock: bool = False
    client_config: Mapping[str, Any] = field(default_factory=dict)
    proxies: tuple[TcpProxy, ...] = ()
    _command_line: Callable[..., list[str]] = field(default=kafka_maven.tool_command, repr=False)

    def options_for(
        self, client: str = "kafka-python", options: Mapping[str, Any] | None = None, compression: Compression = "none"
    ) -> KafkaOptions:
        """How ``client`` reaches this broker; ``options`` are further ones of its library."""
        needed = self.client_config if client == "kafka-python" else {}
        return KafkaOptions(self.bootstrap_servers, client, {**needed, **(options or {})}, compression)

    @property
    def proxy(self) -> TcpProxy | None:
        """The first proxy, where there is one."""
        return self.proxies[0] if self.proxies else None

    def through(self, proxy: int = 0) -> "Broker":
        """The same broker as it is reached through that proxy. Raises ControlUnsupportedError: there is none."""
        if proxy >= len(self.proxies):
            raise ControlUnsupportedError(f"this broker has no such proxy; use kafka_broker(proxies={proxy + 1})")
        return replace(self, bootstrap_servers=self.proxies[proxy].address)

    def command_line(self, tool_class: str, *arguments: str) -> list[str]:
        """The command that runs one of Kafka's own programs against this broker.

        ``tool_class``: for instance ``org.apache.kafka.tools.consumer.ConsoleConsumer``. The jars are
        fetched by Maven when they are not here yet; with Docker it runs inside the container. Raises
        ServerUnavailableError where there is neither.
        """
        return self._command_line(tool_class, *arguments)


def kafka_broker(
    *, prefer: str | None = None, auto_create_topics: bool = True, partitions: int = 4, proxies: int = 0
) -> AbstractContextManager[Broker]:
    """A Kafka broker, ready to use, for the length of a ``with`` block.

    Sources, in this order: ``environment`` (the cluster at ``POSTROOM_KAFKA_BOOTSTRAP_SERVERS``, without TLS
    and SASL; where that is set, no other is tried), ``docker`` (testcontainers, where an engine answers),
    ``maven`` (Apache Kafka's jars, where there are ``java`` and ``mvn``), and ``mock`` (librdkafka's mock
    cluster). ``prefer``, else ``POSTROOM_TESTING_KAFKA``, allows one only. What we start listens on a free
    port of the loopback address.

    ``partitions``: of topics made without saying how many. ``auto_create_topics``: make them on first use.
    ``proxies``: besides, let clients come through so many TcpProxies (``Broker.proxies``), each of which the broker
    advertises to those who come through it. These are for docker and maven; the mock cluster always makes topics, with
    4 partitions, and has no proxy, and neither has a cluster that is not ours.

    Blocks until the broker answers: about 5 s, and longer while an image or jars are fetched. Raises
    ServerUnavailableError with what was tried. At the end, also after an exception or Ctrl-C, the broker is
    stopped and its files are removed; when this process is killed, a process beside it does so.
    """
    settings = _settings(auto_create_topics=auto_create_topics, partitions=partitions, proxies=proxies)
    sources: dict[str, Source[Broker]] = {
        "environment": _from_environment,
        "docker": partial(_from_docker, settings, proxies),
        "maven": partial(_from_maven, settings, proxies),
        "mock": _from_mock,
    }
    return first_available(
        "Kafka broker",
        sources,
        prefer=prefer,
        prefer_variable=SOURCE_VARIABLE,
        address_variable=ADDRESS_VARIABLE,
    )


def _settings(*, auto_create_topics: bool, partitions: int, proxies: int) -> dict[str, object]:
    ways = ["CLIENTS", "BROKER", "CONTROLLER", *(_way(number) for number in range(proxies))]
    return {
        "node.id": 1,
        "process.roles": "broker,controller",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in ways),
        "inter.broker.listener.name": "BROKER",
        "auto.create.topics.enable": str(auto_create_topics).lower(),
        "num.partitions": partitions,
        "default.replication.factor": 1,
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,
        # A test that kills a member may have the group notice it soon.
        "group.min.session.timeout.ms": 1000,
        # After a kill the controller waits this long before it lets the broker in again.
        "broker.session.timeout.ms": 3000,
        "broker.heartbeat.interval.ms": 500,
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,  # of 128 MB, more than our heap spares
    }


@contextmanager
def _from_environment() -> Iterator[Broker]:
    address = environ.get(ADDRESS_VARIABLE)
    if not address:
        raise ServerUnavailableError(f"{ADDRESS_VARIABLE} is not set")
    wait_until_ready(partial(is_ready, address), _ENVIRONMENT_SECONDS, lambda: f"{ADDRESS_VARIABLE} is {address!r}")
    yield Broker(ADDRESS_VARIABLE, Unmanaged(ADDRESS_VARIABLE), address)


@contextmanager
def _from_docker(settings: Mapping[str, object], proxies: int) -> Iterator[Broker]:
    clients, *behind = free_ports(1 + proxies)
    address = f"127.0.0.1:{clients}"
    inside = "localhost:19092"
    with _proxies(behind) as between:
        listeners = {
            "listeners": ",".join(
                [
                    f"CLIENTS://:{clients},BROKER://:19092,CONTROLLER://:19093",
                    *(f"{_way(number)}://:{port}" for number, port in enumerate(behind)),
                ]
            ),
            "advertised.listeners": _advertised(f"CLIENTS://{address},BROKER://{inside}", between),
            "controller.quorum.voters": "1@localhost:19093",
        }
        environment = {
            f"KAFKA_{name.upper().replace('.', '_')}": str(value) for name, value in {**settings, **listeners}.items()
        }
        with running_container(IMAGE, port=clients, more_ports=behind, environment=environment) as container:
            control = ContainerControl(container, partial(is_ready, address))
            control.start()

            def command_line(tool_class: str, *arguments: str) -> list[str]:
                translated = [argument.replace(address, inside) for argument in arguments]
                tool = ["/opt/kafka/bin/kafka-run-class.sh", tool_class, *translated]
                return ["docker", "exec", "-i", container.get_container_id(), *tool]

            origin = f"Docker (testcontainers) {IMAGE}"
            yield Broker(origin, control, address, proxies=between, _command_line=command_line)


@contextmanager
def _from_maven(settings: Mapping[str, object], proxies: int) -> Iterator[Broker]:
    clients, broker, controller, *behind = free_ports(3 + proxies)
    address = f"127.0.0.1:{clients}"
    with _proxies(behind) as between, supervised() as supervisor:
        listeners = {
            "listeners": ",".join(
                [
                    f"CLIENTS://{address},BROKER://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}",
                    *(f"{_way(number)}://127.0.0.1:{port}" for number, port in enumerate(behind)),
                ]
            ),
            "advertised.listeners": _advertised(f"CLIENTS://{address},BROKER://127.0.0.1:{broker}", between),
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        }
        command = kafka_maven.prepare(supervisor, {**settings, **listeners})
        log = supervisor.folder / "kafka.log"
        control = ProcessControl(supervisor, command, log=log, ready=partial(is_ready, address))
        control.start()
        yield Broker(f"Apache Kafka {kafka_maven.KAFKA_VERSION} (Maven)", control, address, proxies=between)


def _way(proxy: int) -> str:
    """The listener behind that proxy."""
    return f"PROXIED{proxy}"


def _advertised(directly: str, proxies: Sequence[TcpProxy]) -> str:
    return ",".join([directly, *(f"{_way(number)}://{proxy.address}" for number, proxy in enumerate(proxies))])


@contextmanager
def _proxies(ports: Sequence[int]) -> Iterator[tuple[TcpProxy, ...]]:
    """A proxy before each port where the broker will listen for those who come through it."""
    with ExitStack() as stack:
        yield tuple(stack.enter_context(TcpProxy("127.0.0.1", port)) for port in ports)


@contextmanager
def _from_mock() -> Iterator[Broker]:
    if find_spec("confluent_kafka") is None:
        raise ServerUnavailableError("the package confluent-kafka is not installed (pip install 'postroom[demo]')")
    with supervised() as supervisor:
        log = supervisor.folder / "mock.log"
        # By its file, and without its folder on the path, where our kafka.py would hide kafka-python.
        command = [sys.executable, "-P", str(Path(__file__).with_name("kafka_mock.py"))]
        control = _MockControl(supervisor, command, log=log, ready=lambda: is_ready(_announced(log)))
        control.start()
        address = _announced(log)
        yield Broker("librdkafka's mock cluster", control, address, is_mock=True, client_config={"api_version": (2, 3)})


class _MockControl(ProcessControl):
    """The mock cluster's log is in memory, and its port is the kernel's choice: there is no second start."""

    _started = False

    def start(self) -> None:
        if self._started and self.pid is None:
            raise ControlUnsupportedError("the mock cluster cannot start again: its log and its port are gone")
        self._started = True
        super().start()


def _announced(log: Path) -> str:
    for line in log.read_text().splitlines(keepends=True):
        if line.startswith(_MOCK_ANNOUNCEMENT) and line.endswith("\n"):
            return line.removeprefix(_MOCK_ANNOUNCEMENT).strip()
    return ""
