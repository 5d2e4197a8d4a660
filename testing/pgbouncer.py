"""PgBouncer in transaction mode before a PostgreSQL server, where this machine has it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from sqlalchemy.engine import make_url

from .postgres import Database
from .process import ProcessControl, supervised, unprivileged_user
from .server import Server, ServerUnavailableError, free_ports

_FOLDERS = "/usr/sbin:/usr/local/sbin"  # where packages put it, and PATH often does not lead


@contextmanager
def pgbouncer(database: Database, *, pool_size: int = 2) -> Iterator[tuple[Server, Database]]:
    """PgBouncer before ``database``: the server, and the database as it is reached through it.

    Transaction mode, ``pool_size`` connections to the server, so that a client's transactions go to several of
    them. Runs as ``nobody`` where we are root. Raises ServerUnavailableError where it is not installed.
    """
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path=_FOLDERS)
    if program is None:
        raise ServerUnavailableError("there is no 'pgbouncer' on PATH (on Debian and Ubuntu: the package pgbouncer)")
    behind = make_url(database.url)
    [port] = free_ports(1)
    url = behind.set(host="127.0.0.1", port=port, username="anyone", password=None)
    through = Database(url.render_as_string(hide_password=False))
    user = unprivileged_user()
    with supervised() as supervisor:
        settings = supervisor.folder / "pgbouncer.ini"
        settings.touch(0o600)
        settings.write_text(
            "[databases]\n"
            f"{behind.database} = host={behind.host} port={behind.port} user={behind.username} "
            f"password={behind.password}\n"
            "[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
            f"pool_mode = transaction\ndefault_pool_size = {pool_size}\nmin_pool_size = {pool_size}\n"
            "server_round_robin = 1\nmax_client_conn = 200\n"
        )
        if user is not None:
            os.chown(settings, *user)
        control = ProcessControl(
            supervisor,
            [program, str(settings)],
            log=supervisor.folder / "pgbouncer.log",
            user=user,
            ready=lambda: _answers(through.url),
        )
        control.start()
        yield Server(f"{Path(program).name} at {program}", control), through


def _answers(url: str) -> bool:
    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=5):
            return True
    except psycopg.OperationalError:
        return False
