"""Questions about a group, which its coordinator answers."""

import time
from collections.abc import Callable
from typing import TypeVar

from kafka import errors as kafka

from .errors import translated

T = TypeVar("T")
#: The first question about any group has a new cluster make its topic of offsets, which takes a while.
_SECONDS = 5.0
_EVERY = 0.1


def ask_coordinator(ask: Callable[[], T]) -> T:
    """``ask()``, again while the coordinator is not there yet, for 5 seconds at most. Raises in our terms."""
    until = time.monotonic() + _SECONDS
    while True:
        with translated():
            try:
                return ask()
            except (kafka.CoordinatorNotAvailableError, kafka.CoordinatorLoadInProgressError):
                if time.monotonic() > until:
                    raise
        time.sleep(_EVERY)
