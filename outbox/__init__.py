"""The producing side: publish a message inside your own transaction."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..messaging.message import Message
from .names import Names

if TYPE_CHECKING:
    from .event import Event
    from .outbox import Outbox

__all__ = ["Event", "Message", "Names", "Outbox"]

#: Imported at the first use: the relay needs neither the ORM nor the models, nor their memory.
_LAZY = {"Event": ".event", "Outbox": ".outbox"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
