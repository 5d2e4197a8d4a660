"""The file of recorded schemas, which is kept beside the code: every version that was ever published.

{
  "postroom_schemas": 1,
  "types": {
    "shop.order.placed": {
      "1": {"topic": "orders", "key": "order_id", "schema": {…}},
      "2": {…}
    }
  }
}
"""

import json
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...messaging.dataschema import MAX_VERSION
from ...messaging.errors import ConfigurationError
from ..upcast import Upcasters
from .changes import Change
from .contract import Contract, compare

FORMAT = 1


class _Version(BaseModel):
    model_config = ConfigDict(extra="forbid")

    topic: str | None
    key: str | None
    schema_: dict[str, Any] = Field(alias="schema")


class _File(BaseModel):
    postroom_schemas: int
    types: dict[str, dict[int, _Version]] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Assessment:
    """How a model stands to what is recorded of its type. ``recorded``: the last version; None for a new type."""

    contract: Contract
    recorded: Contract | None
    changes: tuple[Change, ...] = ()

    @property
    def state(self) -> Literal["new", "unchanged", "compatible", "breaking"]:
        if self.recorded is None:
            return "new"
        if not self.changes:
            return "unchanged"
        return "breaking" if any(each.breaks for each in self.changes) else "compatible"

    @property
    def refused(self) -> bool:
        """Whether it must not be recorded: it breaks without a version of its own."""
        recorded = self.recorded
        return self.state == "breaking" and recorded is not None and self.contract.version <= recorded.version


@dataclass(frozen=True, slots=True)
class Record:
    """Contracts by type and version."""

    types: dict[str, dict[int, Contract]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> "Record | None":
        """What ``path`` holds; None where there is no such file. Raises ConfigurationError."""
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path} cannot be read: {_reason(error)}.") from error
        try:
            document = json.loads(text)
        except ValueError as error:
            raise ConfigurationError(f"{path} is not JSON: {error}; was it merged by hand?") from error
        return cls._of(document, path)

    @classmethod
    def _of(cls, document: object, path: Path) -> "Record":
        number = document.get("postroom_schemas") if isinstance(document, dict) else None
        if isinstance(number, int) and number > FORMAT:
            raise ConfigurationError(f"{path} was written by a newer Postroom; upgrade it.")
        try:
            parsed = _File.model_validate(document)
        except ValidationError as error:
            problem = error.errors(include_url=False, include_context=False)[0]
            place = ".".join(map(str, problem["loc"])) or "the whole"
            raise ConfigurationError(f"{path} holds no recorded schemas: {place}: {problem['msg']}.") from error
        if wrong := [n for versions in parsed.types.values() for n in versions if not 1 <= n <= MAX_VERSION]:
            raise ConfigurationError(f"{path} holds version {wrong[0]}, which cannot be.")
        return cls(
            {
                type_: {number: Contract(type_, number, v.topic, v.key, v.schema_) for number, v in versions.items()}
                for type_, versions in parsed.types.items()
            }
        )

    def last(self, type_: str) -> Contract | None:
        """The highest version that is recorded of a type."""
        versions = self.types.get(type_)
        return versions[max(versions)] if versions else None

    def assess(self, contract: Contract, upcasters: Upcasters) -> Assessment:
        """How ``contract`` stands to the last version."""
        recorded = self.last(contract.type)
        return Assessment(contract, recorded, tuple(compare(recorded, contract, upcasters)) if recorded else ())

    def with_(self, contracts: Iterable[Contract]) -> "Record":
        """This and ``contracts``; other types and versions stay."""
        types = {type_: dict(versions) for type_, versions in self.types.items()}
        for contract in contracts:
            types.setdefault(contract.type, {})[contract.version] = contract
        return Record(types)

    def text(self) -> str:
        """The file: one order, so that only what changed is a difference."""
        types = {
            type_: {
                str(number): {"topic": each.topic, "key": each.key, "schema": each.schema}
                for number, each in sorted(versions.items())
            }
            for type_, versions in sorted(self.types.items())
        }
        return json.dumps({"postroom_schemas": FORMAT, "types": types}, indent=2, ensure_ascii=False) + "\n"

    def save(self, path: Path) -> bool:
        """Write the file as a whole or not at all; False where it says the same. Raises ConfigurationError."""
        text = self.text()
        try:
            if path.exists() and path.read_bytes() == text.encode():
                return False
            _replace(path.resolve(), text.encode())
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be written: {_reason(error)}.") from error
        return True


def _replace(path: Path, content: bytes) -> None:
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    current = os.umask(0o077)
    os.umask(current)
    return current


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "it is no UTF-8 text"
