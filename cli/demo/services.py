"""The services of the demo: order → inventory → payment → shipment → order.

Each is an ordinary application of Postroom, run by ``postroom inbox run postroom.cli.demo.services:NAME``.
An effect is a row without any constraint that would hide a second one, so that the ledger can count.
"""

import os
from decimal import Decimal
from uuid import UUID

from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from ...inbox import Context, Inbox
from ...outbox import Event

PREFIX = os.environ.get("POSTROOM_DEMO_PREFIX", "demo")
ORDERS, STOCK, PAYMENTS, SHIPMENTS = (f"{PREFIX}.{name}" for name in ("orders", "stock", "payments", "shipments"))


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "demo_order"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    item: Mapped[str]
    currency: Mapped[str]
    total: Mapped[Decimal]


class Stock(Base):
    __tablename__ = "demo_stock"
    item: Mapped[str] = mapped_column(primary_key=True)
    reserved: Mapped[int] = mapped_column(default=0)


class Rate(Base):
    """What one unit of a currency is worth in euros."""

    __tablename__ = "demo_rate"
    currency: Mapped[str] = mapped_column(primary_key=True)
    euros: Mapped[Decimal]


class Payment(Base):
    __tablename__ = "demo_payment"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[UUID]
    euros: Mapped[Decimal]


class Shipment(Base):
    __tablename__ = "demo_shipment"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[UUID]


class Completion(Base):
    __tablename__ = "demo_completion"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[UUID]


class OrderPlaced(Event, topic=ORDERS, key="order_id", type="shop.order.placed"):
    order_id: UUID
    item: str
    currency: str
    total: Decimal


class StockReserved(Event, topic=STOCK, key="order_id", type="shop.stock.reserved"):
    order_id: UUID
    currency: str
    total: Decimal


class PaymentTaken(Event, topic=PAYMENTS, key="order_id", type="shop.payment.taken"):
    order_id: UUID
    euros: Decimal


class OrderShipped(Event, topic=SHIPMENTS, key="order_id", type="shop.order.shipped"):
    order_id: UUID


class UnknownCurrencyError(LookupError):
    """Nobody has told the payment service what the currency is worth."""


inventory = Inbox(group=f"{PREFIX}.inventory", source="/inventory")
payment = Inbox(group=f"{PREFIX}.payment", source="/payment")
shipment = Inbox(group=f"{PREFIX}.shipment", source="/shipment")
order = Inbox(group=f"{PREFIX}.order", source="/order")


@inventory.handler(ORDERS, OrderPlaced)
def reserve(event: OrderPlaced, ctx: Context) -> None:
    """Reserve one piece."""
    stock = ctx.session.get_one(Stock, event.item, with_for_update=True)
    stock.reserved += 1
    ctx.publish(StockReserved(order_id=event.order_id, currency=event.currency, total=event.total))


@payment.handler(STOCK, StockReserved, attempts=3, base=0.01, cap=0.05, dead_letters_per_minute=0)
def charge(event: StockReserved, ctx: Context) -> None:
    """Take the money, in euros."""
    rate = ctx.session.get(Rate, event.currency)
    if rate is None:
        raise UnknownCurrencyError(f"no rate for {event.currency!r}")
    euros = (event.total * rate.euros).quantize(Decimal("0.01"))
    ctx.session.add(Payment(order_id=event.order_id, euros=euros))
    ctx.publish(PaymentTaken(order_id=event.order_id, euros=euros))


@shipment.handler(PAYMENTS, PaymentTaken)
def ship(event: PaymentTaken, ctx: Context) -> None:
    """Send it."""
    ctx.session.add(Shipment(order_id=event.order_id))
    ctx.publish(OrderShipped(order_id=event.order_id))


@order.handler(SHIPMENTS, OrderShipped)
def complete(event: OrderShipped, ctx: Context) -> None:
    """Close the order."""
    ctx.session.add(Completion(order_id=event.order_id))


INBOXES = {"inventory": inventory, "payment": payment, "shipment": shipment, "order": order}
READS = {"inventory": ORDERS, "payment": STOCK, "shipment": PAYMENTS, "order": SHIPMENTS}
