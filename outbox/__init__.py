"""The producing side: publish a message inside your own transaction."""

from ..messaging.message import Message
from .event import Event
from .names import Names
from .outbox import Outbox

__all__ = ["Event", "Message", "Names", "Outbox"]
