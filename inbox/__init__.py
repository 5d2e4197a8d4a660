"""The consuming side: each message is applied once, in the transaction that records it."""

from .context import AsyncContext, Context
from .handlers import Received
from .inbox import Inbox
from .runner import InboxRunner
from .settings import InboxSettings

__all__ = ["AsyncContext", "Context", "Inbox", "InboxRunner", "InboxSettings", "Received"]
