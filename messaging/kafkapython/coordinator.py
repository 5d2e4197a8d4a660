"""Questions about a group, which its coordinator answers."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

from kafka import KafkaAdminClient
from kafka import errors as kafka

from .errors import translated

T = TypeVar("T")
#: The first question about any group has a new cluster make its topic of offsets, which takes a while.
_SECONDS = 5.0
_EVERY = 0.1
#: It is being chosen, reads the group's offsets, or is another one by now.
ABSENT = (kafka.CoordinatorNotAvailableError, kafka.CoordinatorLoadInProgressError, kafka.NotCoordinatorError)


def ask_coordinator(admin: KafkaAdminClient, ask: Callable[[], T]) -> T:
    """``ask()`` of ``admin``, again while the coordinator is ABSENT, for 5 seconds at most. Raises in our terms.

    kafka-python's administrator never forgets who coordinates a group, though that changes with every broker
    that is restarted; so each question looks for it first.
    """
    known: dict[Any, Any] = admin._manager.cluster._coordinators
    until = time.monotonic() + _SECONDS
    while True:
        known.clear()
        with translated():
            try:
                return ask()
            except ABSENT:
                if time.monotonic() > until:
                    raise
        time.sleep(_EVERY)
