"""Dead letters as Parquet. Needs pyarrow, which ``postroom[parquet]`` brings."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

from ..messaging.errors import ConfigurationError, UsageError
from .fields import FIELDS, FORMAT, Field, of_values
from .letter import DeadLetter

_MARK = b"postroom.dead_letters"
_AT_ONCE = 1_000


def write(parts: Iterable[Sequence[DeadLetter]], stream: BinaryIO) -> int:
    """Each part as a row group; how many letters there were. Raises ConfigurationError where pyarrow is missing."""
    arrow, files = _arrow()
    schema = _schema(arrow)
    count = 0
    with files.ParquetWriter(stream, schema, compression="zstd", write_statistics=False) as writer:
        for part in parts:
            columns = [
                arrow.array([_value(field, value) for value in column], type=schema.field(field.name).type)
                for column, field in zip(zip(*part, strict=True), FIELDS, strict=True)
            ]
            writer.write_batch(arrow.RecordBatch.from_arrays(columns, schema=schema))
            count += len(part)
    return count


def read(stream: BinaryIO) -> Iterator[tuple[int, DeadLetter]]:
    """The letters with their numbers from 1. Raises UsageError for another file, ConfigurationError."""
    arrow, files = _arrow()
    number = 0
    try:
        file = files.ParquetFile(stream, pre_buffer=False)
        mark = (file.schema_arrow.metadata or {}).get(_MARK)
        if mark != str(FORMAT).encode():
            raise UsageError(f"The file holds no dead letters of format {FORMAT}; `postroom dlq export` writes them.")
        for batch in file.iter_batches(batch_size=_AT_ONCE, use_threads=False):
            for row in batch.to_pylist():
                number += 1
                yield number, _letter(row, number)
    except (arrow.ArrowException, OSError) as error:
        raise UsageError(f"It cannot be read as Parquet after row {number:,}: {_brief(error)}.") from None


def _letter(row: dict[str, Any], number: int) -> DeadLetter:
    try:
        row["headers"] = [(pair["name"], pair["value"]) for pair in row.get("headers") or ()]
        return of_values(row)
    except (KeyError, TypeError):
        raise UsageError(f"Row {number:,} is no dead letter: headers must have names and values.") from None
    except UsageError as error:
        raise UsageError(f"Row {number:,} is no dead letter: {error}.") from None


def _schema(arrow: Any) -> Any:
    kinds = {
        "number": arrow.int32(),
        "long": arrow.int64(),
        "text": arrow.string(),
        "bytes": arrow.binary(),
        "moment": arrow.timestamp("us", tz="UTC"),
        "flag": arrow.bool_(),
        "headers": arrow.list_(arrow.struct([("name", arrow.string()), ("value", arrow.binary())])),
    }

    def made(field: Field) -> Any:
        return arrow.field(field.name, kinds[field.kind], nullable=field.optional)

    return arrow.schema([made(field) for field in FIELDS], metadata={_MARK: str(FORMAT).encode()})


def _value(field: Field, value: Any) -> Any:
    """As Arrow takes it."""
    if field.kind == "headers":
        return [{"name": name, "value": each} for name, each in value or ()]
    return value


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow as arrow  # noqa: ICN001, PLC0415  optional, and slow to import
        from pyarrow import parquet  # noqa: PLC0415  not everybody has it
    except ImportError:
        raise ConfigurationError(
            "Parquet needs pyarrow, which is not installed; pip install 'postroom[parquet]', or take JSON Lines."
        ) from None
    return arrow, parquet


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".")
