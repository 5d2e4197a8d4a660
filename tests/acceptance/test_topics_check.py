"""`postroom topics check` as a process: what it prints, writes and refuses. No server is needed."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

Shell = Any  # tests/acceptance/conftest.py
FILE = "postroom-schemas.json"

EVENTS = """
from postroom.outbox import Event

class Untold(Event):
    number: int

class OrderPlaced(Event, topic="orders", key="order_id", type="shop.order.placed"{version}):
    order_id: int
    {fields}
"""
UPCASTER = """
@OrderPlaced.upcast(1, 2)
def in_cents(payload):
    return {"order_id": payload["order_id"], "cents": payload["euros"] * 100}
"""
BILLING = """
from events import OrderPlaced
from postroom.inbox import Inbox
from postroom.outbox import Event

class Paid(Event, type="shop.paid"):
    number: int

inbox = Inbox("billing")

@inbox.handler("payments", Paid)
def paid(event, ctx): ...

@inbox.handler("refunds", Paid, type="shop.refunded")
def refunded(event, ctx): ...

@inbox.handler("anything")
def anything(received, ctx): ...
"""


def write(shell: Shell, fields: str, *, version: int = 1, more: str = "") -> None:
    text = EVENTS.format(fields=fields, version="" if version == 1 else f", version={version}")
    (shell.folder / "events.py").write_text(text + more)


@pytest.fixture(autouse=True)
def without_bytecode(shell: Shell) -> None:
    """The tests write a module again within the second in which it was compiled."""
    shell.environment["PYTHONDONTWRITEBYTECODE"] = "1"


@pytest.fixture
def recorded(shell: Shell) -> Shell:
    """With version 1, which has euros, on record."""
    write(shell, "euros: int")
    assert shell.run("topics", "check", "events", "--record").returncode == 0
    return shell


def test_what_is_recorded_is_unchanged(recorded: Shell) -> None:
    document = json.loads((recorded.folder / FILE).read_text())
    version = document["types"]["shop.order.placed"]["1"]
    assert (version["topic"], version["key"]) == ("orders", "order_id")
    assert version["schema"]["required"] == ["euros", "order_id"]
    assert list(document["types"]) == ["shop.order.placed"], "an event without a topic is published by nobody"

    done = recorded.run("topics", "check", "events")
    assert (done.returncode, done.stderr) == (0, "")
    assert "unchanged" in done.stdout
    again = recorded.run("topics", "check", "events", "--record")
    assert (again.returncode, f"{FILE} says so already." in again.stdout) == (0, True)


def test_a_field_with_a_default_is_compatible_and_recorded(recorded: Shell) -> None:
    write(recorded, "euros: int\n    note: str = ''")

    checked = recorded.json("topics", "check", "events")
    assert (checked["compatible"], checked["written"]) == (True, False)
    assert "note" not in (recorded.folder / FILE).read_text()
    assert recorded.json("topics", "check", "events", "--record")["written"] is True
    assert "note" in (recorded.folder / FILE).read_text()


def test_a_change_that_breaks_is_told_with_its_direction_and_not_recorded(recorded: Shell) -> None:
    before = (recorded.folder / FILE).read_bytes()
    write(recorded, "cents: int")

    done = recorded.run("topics", "check", "events")
    assert done.returncode == 1
    assert done.stderr == (
        "Error: shop.order.placed: the change breaks its readers. Give OrderPlaced version=2 and "
        "@OrderPlaced.upcast(1, 2); or take the change back.\n"
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["shop.order.placed", "$.cents", "required", "field", "added", "backward"] in lines
    assert ["shop.order.placed", "$.euros", "required", "field", "removed", "forward"] in lines

    refused = recorded.run("topics", "check", "events", "--record")
    assert (refused.returncode, "Nothing was recorded" in refused.stderr) == (1, True)
    assert (recorded.folder / FILE).read_bytes() == before

    assert recorded.run("topics", "check", "events", "--record", "--force").returncode == 0
    assert recorded.json("topics", "check", "events")["models"][0]["state"] == "unchanged"


def test_a_change_that_breaks_forward_only_needs_no_upcaster(recorded: Shell) -> None:
    write(recorded, "euros: int | None")

    done = recorded.run("topics", "check", "events")
    assert (done.returncode, "Give OrderPlaced version=2; or" in done.stderr) == (1, True)


def test_a_raised_version_with_an_upcaster_is_recorded_beside_the_old(recorded: Shell) -> None:
    write(recorded, "cents: int", version=2, more=UPCASTER)

    checked = recorded.json("topics", "check", "events", code=1)
    assert {(c["path"], c["breaks"], c["mended"]) for c in checked["models"][0]["changes"]} == {
        ("$", "forward", False),
        ("$.cents", None, True),
        ("$.euros", "forward", False),
    }
    assert "backward mended" in recorded.run("topics", "check", "events").stdout
    assert recorded.run("topics", "check", "events", "--record").returncode == 0
    versions = json.loads((recorded.folder / FILE).read_text())["types"]["shop.order.placed"]
    assert list(versions) == ["1", "2"]
    assert recorded.json("topics", "check", "events")["models"][0]["recorded_version"] == 2


def test_a_lowered_version_is_refused(recorded: Shell) -> None:
    write(recorded, "cents: int", version=2, more=UPCASTER)
    recorded.run("topics", "check", "events", "--record")
    write(recorded, "euros: int")

    done = recorded.run("topics", "check", "events", "--record")
    assert (done.returncode, "Give OrderPlaced version=3" in done.stderr) == (1, True)


def test_an_inbox_has_the_models_of_its_handlers(recorded: Shell) -> None:
    (recorded.folder / "billing.py").write_text(BILLING)

    named = recorded.json("topics", "check", "billing:inbox", "--record")
    assert [(m["type"], m["topic"], m["model"]) for m in named["models"]] == [
        ("shop.paid", "payments", "billing.Paid"),
        ("shop.refunded", "refunds", "billing.Paid"),
    ]
    assert named["not_found"] == ["shop.order.placed"], "it stays on record"
    whole = recorded.json("topics", "check", "billing", "events:OrderPlaced")
    assert [model["type"] for model in whole["models"]] == ["shop.order.placed", "shop.paid", "shop.refunded"]
    assert {model["state"] for model in whole["models"]} == {"unchanged"}


def test_a_file_elsewhere_and_two_models_of_one_type(recorded: Shell) -> None:
    (recorded.folder / "events2.py").write_text((recorded.folder / "events.py").read_text())
    assert recorded.run("topics", "check", "events", "events2").returncode == 0, "they are the same"

    write(recorded, "cents: int")
    done = recorded.run("topics", "check", "events2", "events", "--file", "other.json", "--record")
    assert (done.returncode, (recorded.folder / "other.json").exists()) == (2, False)
    assert "events2.OrderPlaced and events.OrderPlaced are both of type 'shop.order.placed' and differ" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["nomodule"], 2, "There is no module 'nomodule'"),
        (["events:Missing"], 2, "The module 'events' has no 'Missing'"),
        (["events:NUMBER"], 2, "is neither a subclass of Event nor an Inbox, but int"),
        (["events:Event"], 2, "is neither a subclass of Event nor an Inbox, but Event"),
        (["events:Untold"], 2, "'events:Untold' has no topic"),
        (["events:"], 2, "must be MODULE or MODULE:OBJECT"),
        (["a b"], 2, "must be MODULE or MODULE:OBJECT"),
        (["broken"], 2, "Importing 'broken' failed: version must be"),
        (["odd"], 2, "Odd has no JSON Schema: "),
        (["json"], 1, "No models found in json"),
        ([], 2, "Missing argument 'TARGET...'"),
        (["events", "--force"], 2, "--force goes with --record"),
        (["events", "--file", "absent.json"], 1, "There is no absent.json to compare with"),
        (["events", "--file", "."], 2, "is a directory"),
        (["events", "--file", "garbage.json"], 3, "garbage.json is not JSON"),
        (["events", "--file", "newer.json"], 3, "was written by a newer Postroom"),
        (["events", "--file", "absent/x.json", "--record"], 3, "cannot be written"),
    ],
)
def test_bad_input_gets_one_sentence(shell: Shell, arguments: list[str], code: int, sentence: str) -> None:
    write(shell, "euros: int", more="NUMBER = 3")
    (shell.folder / "broken.py").write_text("from postroom.outbox import Event\nclass A(Event, version=0): ...\n")
    (shell.folder / "odd.py").write_text(
        "import threading\nfrom postroom.outbox import Event\n"
        "class Odd(Event, topic='odd', arbitrary_types_allowed=True):\n    lock: threading.Event\n"
    )
    (shell.folder / "garbage.json").write_text("<<<<<<<")
    (shell.folder / "newer.json").write_text('{"postroom_schemas": 9}')

    done = shell.run("topics", "check", *arguments)

    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    text, *rest = done.stderr.splitlines()
    assert text.startswith("Error: ")
    assert sentence in text
    assert all(line.startswith("Try 'postroom ") for line in rest)
    assert not (shell.folder / FILE).exists()


def test_an_error_is_json_where_that_is_asked_for(recorded: Shell) -> None:
    write(recorded, "cents: int")

    done = recorded.run("topics", "check", "events", "--json")

    assert json.loads(done.stderr)["exit_code"] == 1
    assert json.loads(done.stdout)["compatible"] is False


def test_the_how_to_is_true(shell: Shell, rooms: Path) -> None:
    """What docs/how-to/change-a-schema.md shows, done."""
    page = (rooms / "docs" / "how-to" / "change-a-schema.md").read_text()
    examples = dict(re.findall(r"<!-- example: (\S+) -->\n```python\n(.*?)```", page, re.DOTALL))
    tables = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    assert list(examples) == ["first", "additive", "second", "test_events.py"]
    (shell.folder / "shop").mkdir()
    events = shell.folder / "shop" / "events.py"

    events.write_text(examples["first"])
    shell.run("topics", "check", "shop.events", "--record")
    events.write_text(examples["additive"])
    assert shell.json("topics", "check", "shop.events")["models"][0]["state"] == "compatible"
    shell.run("topics", "check", "shop.events", "--record")
    events.write_text(examples["second"].replace(", version=2", "").partition("@")[0])
    refused = shell.run("topics", "check", "shop.events", COLUMNS="110")
    assert refused.returncode == 1
    shown = [line.rstrip() for line in (refused.stdout + refused.stderr).splitlines()]
    assert shown == tables[0].splitlines()
    events.write_text(examples["second"])
    done = shell.run("topics", "check", "shop.events", "--record", COLUMNS="110")
    assert done.returncode == 0
    assert [line.rstrip() for line in done.stdout.splitlines()] == tables[1].splitlines()
    (shell.folder / "test_events.py").write_text(examples["test_events.py"])
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_events.py"]
    ran = subprocess.run(tests, cwd=shell.folder, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stdout
    assert "2 passed" in ran.stdout
