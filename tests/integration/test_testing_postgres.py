"""The PostgreSQL server for tests: isolated databases, durable data, nothing left behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from postroom.testing import ControlUnsupportedError, Database, Postgres, ServerUnavailableError, postgres_server
from postroom.testing.supervisor import descendants, running

CHILD = """
import json, time
from postroom.testing import postgres_server
from postroom.testing.supervisor import descendants

with postgres_server(prefer={source!r}) as server:
    control = server._control
    pids = [control.pid, *descendants(control.pid), control._supervisor._process.pid]
    print(json.dumps(pids), flush=True)
    while True:
        time.sleep(0.05)  # signal.pause() would sleep through a signal that came just before it
"""


def eventually(condition: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The temporary folder of child processes; open to the user that PostgreSQL runs as under root."""
    folder = Path(tempfile.mkdtemp(prefix="scratch-"))
    folder.chmod(0o755)
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def mentions(folder: Path) -> list[str]:
    """The command lines of processes that have to do with ``folder``."""
    listing = subprocess.run(["ps", "-axww", "-o", "args="], capture_output=True, text=True, check=True)
    return [line for line in listing.stdout.splitlines() if str(folder) in line]


def child(source: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", CHILD.format(source=source)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


@pytest.fixture(scope="module", params=["local", "wheel"])
def own_source(request: pytest.FixtureRequest) -> str:
    try:
        with postgres_server(prefer=request.param):
            return str(request.param)
    except ServerUnavailableError as error:
        pytest.skip(str(error))


def test_each_database_is_empty_and_its_own(postroom_postgres_server: Postgres) -> None:
    with postroom_postgres_server.database() as one, postroom_postgres_server.database() as other:
        with psycopg.connect(one.url) as connection:
            connection.execute("CREATE TABLE mine (id int)")
        with psycopg.connect(other.url) as connection:
            assert connection.execute("SELECT to_regclass('mine')").fetchone() == (None,)
        assert one.sqlalchemy_url.startswith("postgresql+psycopg://")


def test_a_database_is_dropped_with_what_holds_on_to_it(postroom_postgres_server: Postgres) -> None:
    with postroom_postgres_server.database() as database:
        holder = psycopg.connect(database.url)
        holder.execute("SELECT pg_create_logical_replication_slot(current_database() || '_slot', 'pgoutput')")
        holder.commit()
        holder.execute("CREATE TABLE held (id int)")
        holder.execute("PREPARE TRANSACTION 'left behind'")
        name = holder.info.dbname
    holder.close()
    with psycopg.connect(postroom_postgres_server.url) as connection:
        assert connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone() is None


@pytest.mark.parametrize("down", ["stop", "kill"])
def test_committed_data_survives(own_source: str, down: str) -> None:
    with postgres_server(prefer=own_source) as server:
        url = server.create_database()
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS id")
        getattr(server, down)()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(url, connect_timeout=2)
        server.start()
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT id FROM kept").fetchone() == (1,)


def test_it_is_set_up_for_fault_tests(own_source: str) -> None:
    with postgres_server(prefer=own_source) as server, psycopg.connect(server.url) as connection:
        names = ["fsync", "wal_level", "max_connections", "max_prepared_transactions", "listen_addresses"]
        values = [row[0] for name in names if (row := connection.execute(f"SHOW {name}").fetchone())]
        assert values == ["on", "logical", "200", "10", "127.0.0.1"]
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(server.url.replace(connection.info.password, "wrong"))


def test_a_paused_server_keeps_its_connections(own_source: str) -> None:
    with postgres_server(prefer=own_source) as server, psycopg.connect(server.url) as connection:
        server.pause()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(server.url, connect_timeout=2)
        server.resume()
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_sigkill_of_the_owner_leaves_no_server_behind(own_source: str, scratch: Path) -> None:
    with child(own_source) as owner:
        assert owner.stdout is not None
        pids = json.loads(owner.stdout.readline())
        try:  # a worker of the server may have come to its own end meanwhile
            assert {pids[0], pids[-1]} <= set(running(pids))
        finally:
            owner.kill()
    eventually(lambda: not running(pids), "every process of the server is gone")
    eventually(lambda: not list(scratch.iterdir()), "the folder is removed")


@pytest.mark.parametrize("moment", ["postroom-*", "postroom-*/data", "postroom-*/data/postmaster.pid", "ready"])
def test_ctrl_c_at_any_moment_leaves_nothing_behind(own_source: str, scratch: Path, moment: str) -> None:
    with child(own_source) as owner:
        assert owner.stdout is not None
        if moment == "ready":
            owner.stdout.readline()
        else:
            eventually(lambda: list(scratch.glob(moment)), f"{moment} appears")
        owner.send_signal(signal.SIGINT)
        assert owner.wait(30) != 0
    eventually(lambda: not list(scratch.iterdir()), "the folder is removed")
    eventually(lambda: not mentions(scratch), "no process is left")


def test_an_exception_leaves_nothing_behind(own_source: str, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))

    def fail() -> None:
        with postgres_server(prefer=own_source):
            assert list(scratch.iterdir())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not list(scratch.iterdir())


def test_a_given_server_is_used_and_left_alone(
    postroom_postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POSTROOM_TESTING_POSTGRES", raising=False)
    monkeypatch.setenv("POSTROOM_DATABASE_URL", postroom_postgres_server.sqlalchemy_url)
    with postgres_server() as server:
        assert server.origin == "POSTROOM_DATABASE_URL"
        url = server.create_database()
        psycopg.connect(url).close()
        with pytest.raises(ControlUnsupportedError, match="not ours"):
            server.stop()
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(url)


def test_a_given_server_that_is_down_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POSTROOM_TESTING_POSTGRES", raising=False)
    monkeypatch.setenv("POSTROOM_DATABASE_URL", "postgresql://127.0.0.1:1/none")
    with pytest.raises(ServerUnavailableError, match="POSTROOM_DATABASE_URL"), postgres_server():
        pass


def test_an_unknown_source_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTROOM_TESTING_POSTGRES", "elsewhere")
    with pytest.raises(ValueError, match="environment, docker, local, wheel"), postgres_server():
        pass


def test_the_fixture_is_a_database_of_its_own(postroom_postgres: Database) -> None:
    with psycopg.connect(postroom_postgres.url) as connection:
        assert connection.info.dbname.startswith("test_")
        assert os.getpid() not in descendants(connection.info.backend_pid)
