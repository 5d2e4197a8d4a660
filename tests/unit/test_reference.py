"""The reference is generated; here it is compared with the code."""

import importlib.util
from pathlib import Path

import pytest

GENERATED = [
    *("cli.md", "settings.md", "errors.md", "headers.md", "logs.md", "metrics.md"),
    *("schema-postgresql.sql", "schema-sqlite.sql"),
    *("api-outbox.md", "api-inbox.md", "api-relay.md", "api-dlq.md", "api-testing.md"),
]


@pytest.mark.parametrize("name", GENERATED)
def test_the_reference_says_what_the_code_does(rooms: Path, name: str) -> None:
    spec = importlib.util.spec_from_file_location("generate", rooms / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)

    path = rooms / "docs" / "reference" / name
    assert path.read_text() == generate.generated()[generate.REFERENCE / name], "run `make reference`"
