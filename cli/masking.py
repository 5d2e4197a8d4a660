"""Rows as they may be shown: with what is to be redacted masked, their errors too."""

import json
from typing import TYPE_CHECKING

from ..messaging.errors import InvalidRecord
from ..messaging.headers import dump_object, dump_pairs, load
from ..messaging.redact import MASK, Redaction
from ..outbox.entry import LogRow

if TYPE_CHECKING:
    from ..inbox.desk import Held
    from ..messaging.headers import HeaderPairs
    from ..outbox.parking import Parked


def log_row(row: LogRow, redaction: Redaction) -> LogRow:
    """A row of the log."""
    if not redaction:
        return row
    headers = _stored(row.headers, redaction)
    return row._replace(key=redaction.key(row.key), payload=redaction.payload(row.payload), headers=headers)


def parked(row: "Parked", redaction: Redaction) -> "Parked":
    """A parked one; with its payload, where fields of payloads are masked and it has an error."""
    if not redaction:
        return row
    error = row.error and redaction.text(row.error, row.row.payload, headers_of(row.row), row.row.key)
    return row._replace(row=log_row(row.row, redaction), error=error)


def held(row: "Held", redaction: Redaction) -> "Held":
    """A held one; with payload and headers, where fields of them are masked and it has an error."""
    if not redaction:
        return row
    return row._replace(
        key=redaction.key(row.key),
        payload=redaction.payload(row.payload),
        headers=row.headers and _stored(row.headers, redaction),
        error=row.error and redaction.text(row.error, row.payload, row.pairs()[0], row.key),
    )


def headers_of(row: LogRow) -> "HeaderPairs":
    """Those of its record; none where they are broken."""
    try:
        return row.record().headers
    except InvalidRecord:
        return []


def _stored(text: str, redaction: Redaction) -> str:
    """Headers as they stand in a table."""
    try:
        pairs, complete = load(text)
    except InvalidRecord:
        return json.dumps(MASK)  # who knows what stands there
    masked = redaction.headers(pairs)
    if complete:
        return dump_pairs(masked)
    return dump_object({name: value.decode() for name, value in masked})
