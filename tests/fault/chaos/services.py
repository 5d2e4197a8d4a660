"""The services under fire, run by ``postroom inbox run``: orders → billing → payments → shipping.

An effect is a row without any constraint, so that a second one would be seen. The kind of an order says what its
handler does until it is repaired:

    plain    works                      slow      works, and takes its time
    flaky    fails twice, then works    poison    can never work
    broken   fails whenever it is tried killer    ends its process
"""

import asyncio
import os
import time
from uuid import UUID

import sqlalchemy as sa

from postroom.inbox import AsyncContext, Context, Inbox
from postroom.outbox import Event

ORDERS, PAYMENTS = "orders", "payments"
KILLER_CODE = 7
#: What becomes a dead letter.
HOPELESS = frozenset({"poison", "broken", "killer"})

SCHEMA = """
CREATE TABLE account (key text PRIMARY KEY, last integer NOT NULL DEFAULT 0);
CREATE TABLE sent (id uuid PRIMARY KEY, key text NOT NULL, number integer NOT NULL, kind text NOT NULL);
CREATE TABLE effect (
    place bigserial, service text NOT NULL, id text NOT NULL, key text NOT NULL, number integer NOT NULL
);
CREATE TABLE repair (at timestamptz NOT NULL DEFAULT clock_timestamp())
"""

_APPLY = sa.text("INSERT INTO effect (service, id, key, number) VALUES (:service, :id, :key, :number)")
_REPAIRED = sa.text("SELECT EXISTS (SELECT FROM repair)")
_FAILURES = 2
_SLOW = 0.3


class OrderPlaced(Event, topic=ORDERS, key="account", type="chaos.order.placed"):
    account: str
    number: int
    kind: str
    padding: str = ""


class PaymentTaken(Event, topic=PAYMENTS, key="account", type="chaos.payment.taken"):
    account: str
    number: int
    order: UUID


class UnpayableError(Exception):
    """No attempt will help."""


billing = Inbox(group="billing", source="/billing")
shipping = Inbox(group="shipping", source="/shipping")


@billing.handler(ORDERS, OrderPlaced, dead_letter_on=UnpayableError, dead_letters_per_minute=0)
def bill(event: OrderPlaced, ctx: Context) -> None:
    """Apply, and go wrong afterwards, so that the effect has to be undone."""
    ctx.session.execute(
        _APPLY, {"service": "billing", "id": ctx.message_id, "key": event.account, "number": event.number}
    )
    ctx.publish(PaymentTaken(account=event.account, number=event.number, order=UUID(ctx.message_id)))
    if event.kind == "slow":
        time.sleep(_SLOW)
    elif event.kind == "flaky" and ctx.attempt <= _FAILURES:
        raise RuntimeError("not yet")
    elif event.kind in HOPELESS and not ctx.session.scalar(_REPAIRED):
        if event.kind == "killer":
            os._exit(KILLER_CODE)
        raise UnpayableError(event.account) if event.kind == "poison" else ValueError(event.account)


@shipping.handler(PAYMENTS, PaymentTaken)
async def ship(event: PaymentTaken, ctx: AsyncContext) -> None:
    """Apply, on the event loop."""
    await asyncio.sleep(0)
    told = {"service": "shipping", "id": str(event.order), "key": event.account, "number": event.number}
    await ctx.session.execute(_APPLY, told)
