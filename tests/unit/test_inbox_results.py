"""What a handler returns is kept where it can be, and fails nothing where it cannot."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from postroom.inbox import Inbox
from postroom.inbox.attempt import MAX_RESULT, Attempts, Try
from postroom.inbox.delivery import Delivery
from postroom.inbox.fate import Fates
from postroom.inbox.policy import Policy
from postroom.inbox.transactions import SyncTransactions
from postroom.messaging.records import Partition, ReceivedRecord
from postroom.outbox import schema


@pytest.fixture
def transactions(tmp_path: Path) -> Iterator[SyncTransactions]:
    url = f"sqlite:///{tmp_path / 'log.db'}"
    schema.upgrade(url)
    transactions = SyncTransactions(url, "test")
    yield transactions
    transactions.close()


@pytest.mark.parametrize(
    ("result", "told"), [({"paid": 3}, None), (object(), "object"), ("x" * (MAX_RESULT + 1), "str"), (b"x", "bytes")]
)
def test_a_result_that_cannot_be_kept_is_told_and_the_message_is_handled_all_the_same(
    transactions: SyncTransactions, steps: Any, result: object, told: str | None
) -> None:
    inbox = Inbox("billing")
    inbox.handler("orders")(lambda received, ctx: result)
    record = ReceivedRecord(Partition("orders", 0), 0, None, b"", [("ce_id", b"1")], datetime.now(UTC))
    fates = cast("Fates", SimpleNamespace(observe=steps))
    attempts = Attempts(
        inbox, transactions, None, lambda step, each, /, **facts: Fates.tell(fates, step, each, **facts)
    )
    delivery = Delivery.of(record)
    [handler] = inbox.handlers

    assert attempts.make(handler, Policy(), [Try(delivery, handler.decode(delivery), 1)]) == [True]

    assert [facts["returned"] for facts in steps.of("result_not_kept")] == ([told] if told else [])
    kept = transactions.run(lambda session, _: inbox.outcome(session.connection(), "1"))
    assert kept is not None
    assert json.dumps(kept.value) == (json.dumps(result) if told is None else "null")
