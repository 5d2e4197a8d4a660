"""An inbox to begin with, which logs the orders it gets: `postroom inbox run example:inbox`, run in this folder."""

import logging

from postroom.inbox import Context, Inbox
from postroom.outbox import Event

log = logging.getLogger("example")
inbox = Inbox("example")


class OrderPlaced(Event, topic="orders", key="order_id", type="shop.order.placed"):
    """What the example consumes."""

    order_id: str
    total: float


@inbox.handler("orders", OrderPlaced)
def note(event: OrderPlaced, ctx: Context) -> None:
    """Once for each order. What is written with ``ctx.session`` commits together with the inbox row."""
    log.warning("order %s of %.2f (message %s)", event.order_id, event.total, ctx.message_id)
