"""The consuming side: each message is applied once, in the transaction that records it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .settings import InboxSettings

if TYPE_CHECKING:
    from .context import AsyncContext, BatchContext, Context
    from .handlers import Received
    from .inbox import Inbox
    from .runner import InboxRunner

__all__ = ["AsyncContext", "BatchContext", "Context", "Inbox", "InboxRunner", "InboxSettings", "Received"]

#: Imported at the first use: the settings alone are for every command.
_LAZY = {
    "AsyncContext": ".context",
    "BatchContext": ".context",
    "Context": ".context",
    "Inbox": ".inbox",
    "InboxRunner": ".runner",
    "Received": ".handlers",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
