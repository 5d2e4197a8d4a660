"""Header names that are no UTF-8, which kafka-python 3.0.12 cannot read: it would stop at such a record for ever.

Kafka's protocol says that names are UTF-8; brokers do not look, so whoever may write to a topic could stop its readers.
"""

from typing import Any

from kafka.record.default_records import DefaultRecordBatch
from kafka.record.util import decode_varint

#: The first byte that is no ASCII.
_BEYOND_ASCII = 0x80


def tolerate_any_name() -> None:
    """From now on such bytes of a name are read as ``?``; all else of the record stays as it is."""
    read = DefaultRecordBatch._read_msg
    if read.__module__ == __name__:
        return

    def read_any(batch: Any) -> Any:
        try:
            return read(batch)
        except UnicodeDecodeError:
            _make_readable(batch._buffer, batch._pos)
            return read(batch)

    DefaultRecordBatch._read_msg = read_any


def _make_readable(buffer: bytearray, pos: int) -> None:
    """Replace what is no ASCII in those header names of the record at ``pos`` that cannot be read."""
    _, pos = decode_varint(buffer, pos)  # length
    pos += 1  # attributes
    for _ in ("timestamp", "offset"):
        _, pos = decode_varint(buffer, pos)
    for _ in ("key", "value"):
        length, pos = decode_varint(buffer, pos)
        pos += max(length, 0)
    count, pos = decode_varint(buffer, pos)
    for _ in range(count):
        length, pos = decode_varint(buffer, pos)
        name = buffer[pos : pos + length]
        try:
            name.decode()
        except UnicodeDecodeError:
            buffer[pos : pos + length] = bytes(byte if byte < _BEYOND_ASCII else ord("?") for byte in name)
        pos += length
        length, pos = decode_varint(buffer, pos)
        pos += max(length, 0)
