"""Going through what is held or parked, page by page, with all that the options ask for."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .finding import Finding, failure_of

if TYPE_CHECKING:
    from ..inbox.desk import Desk, Held
    from ..inbox.desk import Wanted as WantedHeld
    from ..outbox.parking import Parked, Parking
    from ..outbox.parking import Wanted as WantedParked

_PAGE, _PAGE_WITH_PAYLOADS = 1_000, 100
_FOR_DATABASE = ("topic", "key", "type", "error", "message_id", "since", "until")


def wanted_held(found: Finding, **more: Any) -> "WantedHeld":
    """What the table of held messages is asked."""
    from ..inbox.desk import Wanted

    return Wanted(**{**found.plain(*_FOR_DATABASE, "group", "state"), **more})


def wanted_parked(found: Finding, **more: Any) -> "WantedParked":
    """What the table of parked messages is asked."""
    from ..outbox.parking import Wanted

    return Wanted(**{**found.plain(*_FOR_DATABASE, "state"), **more})


def held(
    desk: "Desk", found: Finding, *, after: int = 0, newest: bool = False, whole: bool = False, **more: Any
) -> "Iterator[Held]":
    """By id, behind ``after``; ``whole``: with payloads and headers. ``more`` of what the table is asked."""
    whole = whole or found.of_record
    wanted, limit = wanted_held(found, **more), _PAGE_WITH_PAYLOADS if whole else _PAGE
    while rows := desk.held(wanted, limit, after=after, newest=newest, payloads=whole):
        for row in rows:
            headers = row.pairs()[0] if found.of_record else ()
            if found.suits(failure_of(row.error, row.handler), row.payload, headers, row.key):
                yield row
        after = rows[-1].id


def parked(
    parking: "Parking", found: Finding, *, after: int = 0, newest: bool = False, whole: bool = False, **more: Any
) -> "Iterator[Parked]":
    """By position, behind ``after``; ``whole``: with payloads. ``more`` of what the table is asked."""
    from .masking import headers_of

    whole = whole or found.of_record
    wanted, limit = wanted_parked(found, **more), _PAGE_WITH_PAYLOADS if whole else _PAGE
    while rows := parking.find(wanted, limit, after=after, newest=newest, payloads=whole):
        for each in rows:
            headers = headers_of(each.row) if found.of_record else ()
            if found.suits(failure_of(each.error), each.row.payload, headers, each.row.key):
                yield each
        after = rows[-1].row.position
