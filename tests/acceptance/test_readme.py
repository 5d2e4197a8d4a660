"""The README's examples, word for word, as a program of its own against real servers."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from postroom.messaging.errors import UnknownTopic
from postroom.messaging.kafka import KafkaOptions, connect
from postroom.testing import kafka_broker
from postroom.testing.postgres import Database

POSTROOM = [sys.executable, "-m", "postroom.cli.main"]


@pytest.fixture
def examples(rooms: Path, tmp_path: Path) -> Path:
    """The folder with the examples as files."""
    readme = (rooms / "README.md").read_text()
    found = dict(re.findall(r"<!-- example: (\S+) -->\n```python\n(.*?)```", readme, re.DOTALL))
    assert found.keys() == {"shop.py", "billing.py", "test_shop.py"}
    for name, code in found.items():
        (tmp_path / name).write_text(code)
    return tmp_path


@pytest.fixture
def shop(examples: Path, postroom_postgres: Database) -> Any:
    """The examples, and servers of their own, since the README's topics have fixed names."""
    with kafka_broker() as broker:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")},
            "POSTROOM_DATABASE_URL": postroom_postgres.url,
            "POSTROOM_KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
            "POSTROOM_KAFKA_OPTIONS": json.dumps(dict(broker.client_config)),
        }
        kafka = connect(KafkaOptions(broker.bootstrap_servers, options=dict(broker.client_config)))

        class Shop:
            url = postroom_postgres.url

            def run(self, *command: str, code: int = 0) -> str:
                done = subprocess.run(
                    command, cwd=examples, env=environment, capture_output=True, text=True, timeout=60, check=False
                )
                assert done.returncode == code, done.stderr
                return done.stdout

            def start(self, *command: str) -> "subprocess.Popen[str]":
                return subprocess.Popen(command, cwd=examples, env=environment, stderr=subprocess.PIPE, text=True)

            def count(self, table: str) -> int:
                with psycopg.connect(self.url) as connection:
                    if connection.execute("SELECT to_regclass(%s)", [table]).fetchone() == (None,):
                        return 0
                    row = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
                    return int(row[0]) if row else 0

            def records(self, topic: str) -> int:
                reader = kafka.reader()
                try:
                    return len(list(reader.read(topic)))
                except UnknownTopic:
                    return 0
                finally:
                    reader.close()

        yield Shop()


def test_the_readme_program_publishes_consumes_and_replays(shop: Any, eventually: Callable[..., None]) -> None:
    assert "tables" in shop.run(*POSTROOM, "init").lower()
    shop.run(sys.executable, "shop.py")
    shop.run(sys.executable, "-c", "from decimal import Decimal; import shop; shop.place_order(Decimal(0))")
    service = shop.start(*POSTROOM, "inbox", "run", "billing:inbox", "--relay")
    try:
        eventually(lambda: shop.count("billing_payment") == 1, "the good order is paid")
        eventually(lambda: shop.records("payments") == 1, "and the payment is published")
        eventually(lambda: shop.records("orders.billing.dlq") == 1, "the bad order is a dead letter")
        (listed,) = json.loads(shop.run(*POSTROOM, "dlq", "list", "--state", "dead", "--json"))["dead_letters"]
        assert "nothing to pay" in shop.run(*POSTROOM, "dlq", "stats")
        assert "nothing to pay" in shop.run(*POSTROOM, "dlq", "show", str(listed["id"]))
        shop.run(*POSTROOM, "dlq", "replay", "--topic", "orders", "--group", "billing", "--dry-run")
        assert shop.records("orders") == 2
        replay = (*POSTROOM, "dlq", "replay", "--topic", "orders", "--reason", "rate fixed", "--yes", "--wait")
        assert "failed again   1" in shop.run(*replay, code=1), "and dies again, since nothing was fixed"
        assert shop.records("orders") == 3
        assert shop.records("orders.billing.dlq") == 2
        (again,) = json.loads(shop.run(*POSTROOM, "dlq", "list", "--state", "dead", "--json"))["dead_letters"]
        assert again["follows"] == listed["id"]
    finally:
        service.terminate()
        _, errors = service.communicate(timeout=30)

    assert service.returncode == 0, errors
    assert "Traceback" not in errors
    assert shop.count("billing_payment") == 1


def test_the_readme_tests_pass(examples: Path) -> None:
    environment = {**os.environ, "POSTROOM_DATABASE_URL": "sqlite:///shop.db"}
    for command in ([*POSTROOM, "db", "upgrade"], [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]):
        done = subprocess.run(
            command, cwd=examples, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout
