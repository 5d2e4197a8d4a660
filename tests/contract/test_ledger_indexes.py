"""PostgreSQL finds dead letters by index, however many there are."""

from typing import Any

import pytest
import sqlalchemy as sa

from postroom.dlq import Filter, find, neighbours

ROWS = 50_000
STOCK = """
INSERT INTO postroom.dead_letter (dead_letter_topic, "partition", "offset", written_at, family, message_id, inbox_id,
    key, topic, consumer_group, failed_at, fingerprint, order_partition, order_offset)
SELECT 'orders.dlq', 0, n, now(), 'postroom', 'id-' || n, 'id-' || n, convert_to('k' || n % 10000, 'UTF8'), 'orders',
    'billing', now() - n * interval '1 second', md5((n % 50)::text), 0, n
FROM generate_series(1, :rows) AS n
"""
STATES = """
INSERT INTO postroom.dead_letter_state (id, state, plan_id, ordinal)
SELECT id, CASE WHEN id % 1000 = 0 THEN 'planned' ELSE 'confirmed' END, id % 1000, id / 1000
FROM postroom.dead_letter WHERE id % 10 = 0
"""


@pytest.mark.parametrize("desks", ["postgres"], indirect=True)
def test_what_is_looked_for_often_is_found_by_index(desk: Any) -> None:
    with desk.ledger.changing() as work:
        work.connection.execute(sa.text(STOCK), {"rows": ROWS})
        work.connection.execute(sa.text(STATES))
        for table in ("dead_letter", "dead_letter_state"):
            work.connection.execute(sa.text(f"ANALYZE postroom.{table}"))
        [fingerprint] = work.connection.execute(sa.text("SELECT md5('7')")).scalars()
    [last] = find(desk.ledger, Filter(), sort="arrival", limit=1).letters
    plans: list[str] = []

    def explain(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT") and "dead_letter" in statement:
            with cursor.connection.cursor() as own:
                plans.append("\n".join(row[0] for row in own.execute("EXPLAIN " + statement, parameters)))

    engine = desk.ledger._engine
    sa.event.listen(engine, "before_cursor_execute", explain)
    for look, index in (
        (lambda: find(desk.ledger, Filter()), "failed_at"),
        (lambda: find(desk.ledger, Filter(), after=last.id), "failed_at"),
        (lambda: find(desk.ledger, Filter(), sort="oldest"), "failed_at"),
        (lambda: find(desk.ledger, Filter(fingerprint=fingerprint)), "fingerprint"),
        (lambda: find(desk.ledger, Filter(key=b"k7")), "key"),
        (lambda: find(desk.ledger, Filter(message_id="id-7")), "message_id"),
        (lambda: find(desk.ledger, Filter(plan=10)), "state_plan"),
        (lambda: neighbours(desk.ledger, last), "key"),
    ):
        plans.clear()
        look()
        assert plans
        assert "Seq Scan" not in "".join(plans)
        assert f"dead_letter_{index}" in plans[-1]
    sa.event.remove(engine, "before_cursor_execute", explain)
