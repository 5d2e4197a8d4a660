"""The reference is generated; here it is compared with the code."""

import importlib
from pathlib import Path

import pytest

GENERATED = [
    *("cli.md", "settings.md", "errors.md", "headers.md", "logs.md", "metrics.md"),
    *("schema-postgresql.sql", "schema-sqlite.sql"),
    *("api-outbox.md", "api-inbox.md", "api-relay.md", "api-dlq.md", "api-testing.md"),
]


@pytest.mark.parametrize("name", GENERATED)
def test_the_reference_says_what_the_code_does(rooms: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(rooms)
    generate = importlib.import_module("docs.generate.__main__")

    path = rooms / "docs" / "reference" / name
    assert path.read_text() == generate.generated()[generate.REFERENCE / name], "run `make reference`"
