"""The file of recorded schemas: what stands in it, what is refused, and that it is written as a whole."""

import json
from pathlib import Path
from typing import Any

import pytest

from postroom.messaging.errors import ConfigurationError
from postroom.outbox.compatibility.contract import Contract
from postroom.outbox.compatibility.record import Record
from postroom.outbox.upcast import Upcasters

NO_UPCASTERS = Upcasters("M", 1_000)


def contract(version: int = 1, type_: str = "shop.order", field: str = "integer", **more: Any) -> Contract:
    schema = {"properties": {"a": {"type": field}}, "required": ["a"], "type": "object", **more}
    return Contract(type_, version, "orders", None, schema)


def test_a_type_is_new_unchanged_compatible_or_breaking() -> None:
    record = Record().with_([contract()])

    def state(new: Contract) -> str:
        return record.assess(new, NO_UPCASTERS).state

    assert state(contract(type_="shop.other")) == "new"
    assert state(contract()) == state(contract(description="of an order")) == "unchanged"
    assert state(contract(properties={"a": {"type": "integer"}, "b": {"type": "null"}})) == "compatible"
    assert state(contract(field="string")) == "breaking"


def test_what_breaks_needs_a_version_that_was_not_recorded() -> None:
    record = Record().with_([contract(), contract(3)])

    assert record.last("shop.order") == contract(3)
    assert not record.assess(contract(3), NO_UPCASTERS).refused
    assert record.assess(contract(3, field="string"), NO_UPCASTERS).refused
    assert record.assess(contract(2, field="string"), NO_UPCASTERS).refused
    assert record.assess(contract(2), NO_UPCASTERS).refused
    assert not record.assess(contract(4, field="string"), NO_UPCASTERS).refused


def test_the_file_keeps_every_version_in_the_order_of_numbers(tmp_path: Path) -> None:
    path = tmp_path / "schemas.json"
    record = Record().with_([contract(10), contract(2), contract(1, "a.first")]).with_([contract(9), contract(1, "z")])

    assert record.save(path)
    document = json.loads(path.read_text())
    assert document["postroom_schemas"] == 1
    assert {type_: list(versions) for type_, versions in document["types"].items()} == {
        "a.first": ["1"],
        "shop.order": ["2", "9", "10"],
        "z": ["1"],
    }
    assert document["types"]["z"]["1"] == {"topic": "orders", "key": None, "schema": contract().schema}
    assert Record.load(path) == record
    assert not record.save(path), "it says so already"


def test_recording_again_replaces_that_version_alone() -> None:
    record = Record().with_([contract(1), contract(2)]).with_([contract(2, field="string")])

    assert record.types["shop.order"] == {1: contract(1), 2: contract(2, field="string")}


def test_there_is_nothing_where_there_is_no_file(tmp_path: Path) -> None:
    assert Record.load(tmp_path / "absent.json") is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is not JSON"),
        ("<<<<<<< HEAD\n", "was it merged by hand?"),
        ("[]", "holds no recorded schemas: the whole: Input should be"),
        ("{}", "postroom_schemas: Field required"),
        ('{"postroom_schemas": 2}', "newer Postroom"),
        ('{"postroom_schemas": 1, "types": {"t": {"one": {}}}}', "types.t.one"),
        ('{"postroom_schemas": 1, "types": {"t": {"1": {"topic": "t", "key": null}}}}', "types.t.1.schema"),
        ('{"postroom_schemas": 1, "types": {"t": {"0": {"topic": "t", "key": null, "schema": {}}}}}', "version 0"),
        ("\udcff", "it is no UTF-8 text"),
    ],
)
def test_a_file_of_another_kind_is_told_in_one_sentence(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "schemas.json"
    path.write_bytes(text.encode(errors="surrogateescape"))

    with pytest.raises(ConfigurationError) as raised:
        Record.load(path)

    assert told in str(raised.value)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_cannot_be_read_or_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        Record.load(tmp_path)
    with pytest.raises(ConfigurationError, match="cannot be written: No such file or directory"):
        Record().save(tmp_path / "absent" / "schemas.json")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "schemas.json"
    Record().save(path)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(ConfigurationError, match="No space left on device"):
        Record().with_([contract()]).save(path)

    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_keeps_its_mode_and_a_link_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    Record().save(real)
    assert real.stat().st_mode & 0o077 == 0o044 or real.stat().st_mode & 0o400, "as the umask has it"
    real.chmod(0o664)
    link.symlink_to(real)

    Record().with_([contract()]).save(link)

    assert link.is_symlink()
    assert "shop.order" in real.read_text()
    assert real.stat().st_mode & 0o777 == 0o664
