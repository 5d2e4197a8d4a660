"""What is held and parked is found by the same filters, on both databases; and nothing of what is masked is shown."""

import json
import shlex
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result

from postroom.cli.app import App
from postroom.cli.root import postroom
from postroom.inbox.desk import Desk
from postroom.inbox.desk import Wanted as WantedHeld
from postroom.messaging.headers import dump_pairs
from postroom.messaging.redact import MASK
from postroom.outbox import Message, Names, Outbox, schema
from postroom.outbox.database import open_store, parse_url
from postroom.outbox.parking import Parking, Wanted
from postroom.outbox.sqlite import stored_moment
from postroom.outbox.write import run_query

NOW = datetime.now(UTC)
SECRET = "4111-2222"


class Tables:
    """As relay and inbox write them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.sqlite = url.startswith("sqlite")
        self.engine = sa.create_engine(parse_url(url), poolclass=sa.NullPool)

    def run(self, query: str, **params: Any) -> None:
        moments = {name: stored_moment(each) for name, each in params.items() if isinstance(each, datetime)}
        with self.engine.begin() as connection:
            run_query(connection, query, {**params, **(moments if self.sqlite else {})}, Names())

    def change(self, sql: str, **params: Any) -> None:
        moments = {name: stored_moment(each) for name, each in params.items() if isinstance(each, datetime)}
        with self.engine.begin() as connection:
            rendered = Names().render(sql, "sqlite" if self.sqlite else "postgres")
            connection.execute(sa.text(rendered), {**params, **(moments if self.sqlite else {})})

    def hold(self, offset: int, hours: float = 0, headers: Any = (), **more: Any) -> None:
        row = {
            "group": "billing",
            "topic": "orders",
            "partition": 0,
            "offset": offset,
            "message_id": f"m-{offset}",
            "key": b"k",
            "type": "shop.order",
            "payload": json.dumps({"n": offset, "card": SECRET}).encode(),
            "headers": dump_pairs([("ce_id", b"m-%d" % offset), ("auth", SECRET.encode()), *headers]),
            "timestamp": NOW,
            "handler": "shop.charge",
            "state": "retry",
            "attempts": 3,
            "error": f"ValueError: card '{SECRET}' of order {offset}",
            "first_failed_at": NOW,
            "next_attempt_at": NOW + timedelta(hours=1),
            **more,
        }
        self.run("hold", **row)
        at = NOW - timedelta(hours=hours)
        self.change('UPDATE {inbox_held} SET held_at = :at WHERE "offset" = :offset', at=at, offset=offset)

    def park(self, position: int, hours: float = 0, **more: Any) -> None:
        row: dict[str, Any] = {
            "shard": 0,
            "position": position,
            "id": f"00000000-0000-7000-8000-{position:012}",
            "topic": "orders",
            "key": b"k",
            "type": "shop.order",
            "payload": json.dumps({"n": position, "card": SECRET}).encode(),
            "headers": json.dumps({"auth": SECRET}),
            "created_at": NOW,
            "error": f"RecordTooLarge: {SECRET}, {position} bytes",
            "by_topic": False,
            **more,
        }
        self.run("park", **row)
        at = NOW - timedelta(hours=hours)
        self.change("UPDATE {outbox_parked} SET parked_at = :at WHERE position = :position", at=at, position=position)


@pytest.fixture(params=["postgres", "sqlite"])
def tables(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tables]:
    url = f"sqlite:///{tmp_path / 'app.db'}"
    if request.param == "postgres":
        url = request.getfixturevalue("postroom_postgres").url
    schema.upgrade(url)
    monkeypatch.setenv("POSTROOM_DATABASE_URL", url)
    monkeypatch.chdir(tmp_path)
    made = Tables(url)
    yield made
    made.engine.dispose()


def told(*command: str, code: int = 0) -> str:
    ended: Result = CliRunner(env={"COLUMNS": "80"}).invoke(postroom, command, obj=App())
    assert ended.exit_code == code, (ended.output, ended.exception)
    return ended.stdout


def found(*command: str, code: int = 0) -> Any:
    return json.loads(told(*command, "--json", code=code))


def held(*arguments: str) -> list[int]:
    return [each["offset"] for each in found("inbox", "held", "list", *arguments)["held"]]


def parked(*arguments: str) -> list[int]:
    return [each["position"] for each in found("outbox", "parked", "list", *arguments)["parked"]]


def test_parked_messages_are_found_by_what_the_table_knows(tables: Tables) -> None:
    tables.park(1, hours=3)
    tables.park(2, error=None, key=b"\xff")
    tables.park(3, error=None, by_topic=True, topic="payments", type="shop.pay_ment")
    tables.park(4, error="Unknown Topic 100%", type="shop.pay[1]", key=None)
    tables.change("UPDATE {outbox_parked} SET retry = true WHERE position = 4")
    parking = Parking(tables.url)

    def at(**wanted: Any) -> list[int]:
        assert sum(parking.count(Wanted(**wanted)).values()) == len(parking.find(Wanted(**wanted), 10))
        return [each.row.position for each in parking.find(Wanted(**wanted), 10)]

    assert at() == [1, 2, 3, 4]
    assert at(topic="payments") == [3]
    assert (at(key=b"\xff"), at(key=b"k")) == ([2], [1, 3])
    assert at(type="shop.*") == [1, 2, 3, 4]
    assert (at(type="shop.pay_*"), at(type="shop.pay[1]"), at(type="shop.pay?ment")) == ([3], [4], [3])
    assert (at(type="SHOP.*"), at(type="shop.%"), at(type="shop.pay[0-9]"), at(type="shop.orde")) == ([], [], [], [])
    assert (at(error="unknown t"), at(error="100%"), at(error="1%")) == ([4], [4], [])
    assert at(message_id="00000000-0000-7000-8000-000000000002") == [2]
    assert (at(since=NOW - timedelta(hours=1)), at(until=NOW - timedelta(hours=1))) == ([2, 3, 4], [1])
    assert (at(refused=True), at(refused=False)) == ([1, 4], [2, 3])
    states = [at(state=state) for state in ("refused", "behind", "topic", "retry")]
    assert states == [[1], [2], [3], [4]]
    assert parking.count(Wanted()) == {"refused": 1, "behind": 1, "topic": 1, "retry": 1}
    newest = parking.find(Wanted(), 2, newest=True)
    assert [each.row.position for each in newest] == [4, 3]
    assert [each.row.position for each in parking.find(Wanted(), 2, newest=True, after=3)] == [2, 1]
    assert [each.row.position for each in parking.find(Wanted(), 2, after=3)] == [4]
    assert {each.row.payload for each in newest} == {None}
    [whole] = parking.find(Wanted(), 1, payloads=True)
    assert (whole.row.payload, whole.size) == (b'{"n": 1, "card": "4111-2222"}', 29)
    assert parking.at([1, 77]) == [whole]
    parking.close()


def test_held_messages_are_found_with_wildcards_and_in_both_orders(tables: Tables) -> None:
    tables.hold(1, group="billing_a")
    tables.hold(2, group="billing-b", type="a%b")
    tables.hold(3, group="audit", type=None)
    desk = Desk(tables.url)

    def at(**wanted: Any) -> list[int]:
        return [each.offset for each in desk.held(WantedHeld(**wanted), 10)]

    assert (at(group="billing*"), at(group="billing_?"), at(group="billing?b")) == ([1, 2], [1], [2])
    assert (at(group="BILLING*"), at(type="a?b"), at(type="a%b"), at(type="*")) == ([], [2], [2], [1, 2])
    assert desk.count(WantedHeld(group="billing*")) == {"retry": 2}
    latest = desk.held(WantedHeld(), 2, newest=True)
    assert [each.offset for each in latest] == [3, 2]
    assert [each.offset for each in desk.held(WantedHeld(), 2, newest=True, after=latest[-1].id)] == [1]
    assert (latest[0].payload, latest[0].headers) == (None, None)
    [whole] = desk.held(WantedHeld(), 1, payloads=True)
    assert (whole.payload, ("auth", SECRET.encode()) in whole.pairs()[0]) == (b'{"n": 1, "card": "4111-2222"}', True)
    desk.close()


@pytest.mark.parametrize("listed", [held, parked])
def test_headers_conditions_and_fingerprints_go_with_the_other_filters(
    tables: Tables, listed: Callable[..., list[int]]
) -> None:
    one = "inbox held" if listed is held else "outbox parked"
    for number in range(1, 5):
        more: dict[str, Any] = {"error": "KeyError: gone"} if number == 4 else {}
        if listed is held:
            tables.hold(number, headers=[("even", b"yes")] * (number % 2 == 0), **more)
        else:
            tables.park(number, headers=json.dumps({"even": "yes"} if number % 2 == 0 else {}), **more)
    first = found(*one.split(), "list", "--sort", "newest", "--match", "payload.n > 1", "--limit", "2")
    assert ([each["fingerprint"] for each in first[one.split()[1]]], first["total"]) == (
        [
            each["fingerprint"]
            for each in found(*one.split(), "list", "--sort", "newest", "--limit", "2")[one.split()[1]]
        ],
        None,
    )
    assert listed("--sort", "newest", "--match", "payload.n > 1", "--limit", "2") == [4, 3]
    assert listed("--sort", "newest", "--match", "payload.n > 1", "--limit", "2", "--after", str(first["next"])) == [2]
    assert listed("--header", "even") == [2, 4]
    assert listed("--header", "even=yes", "--header", "ce_id", "--match", 'key == "k"', "--error", "VALUE") == (
        [2] if listed is held else []
    )
    assert (listed("--header", "even=no"), listed("--header", "EVEN")) == ([], [])
    groups = found(*one.split(), "stats")
    assert [(each["count"], sum(each["trend"])) for each in groups["failures"]] == [(3, 3), (1, 1)]
    fingerprint = groups["failures"][0]["fingerprint"]
    assert len(fingerprint) == 16
    assert listed("--fingerprint", fingerprint[:5].upper()) == [1, 2, 3]
    assert f"--fingerprint {fingerprint[:8]}" in told(*one.split(), "stats")
    assert told(*one.split(), "stats", "--topic", "none").startswith("Nothing of that is ")
    for wrong in (["--match", "payload.n >"], ["--header", "=x"], ["--key", "0xf"], ["--fingerprint", "xyz"]):
        told(*one.split(), "list", *wrong, code=2)


def test_what_is_changed_is_what_the_condition_says(tables: Tables) -> None:
    for number in range(1, 4):
        tables.hold(number, key=b"\xff%d" % number)
        tables.park(number, key=b"\xff%d" % number)
    assert found("outbox", "parked", "discard", "--match", "payload.n >= 2", "--dry-run")["positions"] == [2, 3]
    assert found("outbox", "parked", "discard", "--match", "payload.n >= 2", "--yes")["changed"] == 2
    assert parked() == [1]
    assert found("outbox", "parked", "retry", "--key", "0xff31", "--yes", "--reason", "why")["positions"] == [1]
    assert parked("--state", "retry") == [1]
    assert found("inbox", "held", "discard", "--key", "base64:/zI=", "--yes", "--reason", "why")["changed"] == 1
    assert held() == [1, 3]
    fingerprint = found("inbox", "held", "list")["held"][0]["fingerprint"]
    assert (
        found("inbox", "held", "retry", "--fingerprint", fingerprint, "--match", "payload.n == 3", "--yes")["changed"]
        == 1
    )
    tried = {each["offset"]: each["attempts"] for each in found("inbox", "held", "list")["held"]}
    assert tried == {1: 3, 3: 0}
    assert {each["reason"] for each in found("inbox", "actions")["actions"]} == {"why", None}


@pytest.mark.parametrize("one", ["inbox held", "outbox parked"])
def test_an_export_has_everything_and_a_file_of_its_own(tables: Tables, one: str, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        tables.hold(number, payload=b"\xff", headers=[("odd", b"\xfe")])
        tables.park(number, payload=b"\xff", headers=dump_pairs([("odd", b"\xfe")]))
    file = tmp_path / "out.jsonl"
    assert found(*one.split(), "export", "--until", "0s", "--out", str(file)) == {"exported": 3, "file": str(file)}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [each["payload"] for each in lines] == [{"base64": "/w=="}] * 3
    assert all(["odd", {"base64": "/g=="}] in each["headers"] for each in lines)
    assert {each["kind"] for each in lines} == {one.split()[1]}
    told(*one.split(), "export", "--out", str(file), code=2)
    assert len(file.read_text().splitlines()) == 3
    piped = told(*one.split(), "export", "--match", "key == 'k'", "--out", "-")
    assert [json.loads(line)["key"] for line in piped.splitlines()] == ["k"] * 3


_SHOWN = [
    ["inbox", "held", "list"],
    ["inbox", "held", "show", "1"],
    ["inbox", "held", "stats"],
    ["inbox", "held", "export", "--out", "-"],
    ["outbox", "parked", "list"],
    ["outbox", "parked", "show", "1"],
    ["outbox", "parked", "stats"],
    ["outbox", "parked", "export", "--out", "-"],
    ["outbox", "list"],
    ["outbox", "show", "1"],
    ["stuck", "--no-sync"],
]


@pytest.mark.parametrize("payload", [json.dumps({"n": 1, "card": SECRET}).encode(), b"card=4111-2222"])
def test_what_is_to_be_redacted_is_nowhere(tables: Tables, payload: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    tables.hold(1, payload=payload, key=b"secret-key")
    tables.park(1, payload=payload, key=b"secret-key", error=f"Refused: {SECRET} of secret-key")
    store = open_store(tables.url)
    store.append([Outbox(source="/s").entry(Message(topic="orders", key=b"secret-key", payload=payload, type="t"))])
    store.close()
    commands = [[*command, *more] for command in _SHOWN for more in ([], ["--json"])]
    plain = {"".join(command): told(*command) for command in commands}
    assert sum(SECRET in text for text in plain.values()) >= 14
    monkeypatch.setenv("POSTROOM_REDACT", "payload.card,headers.auth,key")
    for command in commands:
        text = told(*command)
        assert SECRET not in text, command
        assert "secret-key" not in text, command
        if "stats" not in command and "stuck" not in command:
            assert MASK in text, command


def test_all_that_is_stuck_is_listed_together(tables: Tables) -> None:
    assert found("stuck", "--no-sync", "--fail") == {"stuck": [], "total": 0}
    assert told("stuck", "--no-sync") == "Nothing is stuck.\n"
    tables.hold(1, hours=5, topic="payments")
    tables.hold(2, hours=1, error="KeyError: gone")
    tables.hold(3, hours=2)
    tables.hold(4, hours=3)
    tables.hold(5, state="behind", error=None, key=b"o'17")
    tables.park(7, hours=9)
    tables.park(8, error=None)
    rows = found("stuck", "--no-sync", "--fail", code=1)["stuck"]
    assert [(row["kind"], row["topic"], row["group"], row["state"], row["count"]) for row in rows] == [
        ("held", "payments", "billing", "retry", 1),
        ("held", "orders", "billing", "retry", 3),
        ("held", "orders", "billing", "behind", 1),
        ("parked", "orders", None, "refused", 1),
        ("parked", "orders", None, "behind", 1),
    ]
    assert [row["error"] and row["error"].split(":")[0] for row in rows] == [
        "ValueError",
        "ValueError",
        None,
        "RecordTooLarge",
        None,
    ]
    assert datetime.fromisoformat(rows[1]["oldest_at"]) == pytest.approx(
        NOW - timedelta(hours=3), abs=timedelta(seconds=1)
    )
    assert rows[1]["command"] == "postroom inbox held list --topic orders --group billing --state retry"
    for row in found("stuck", "--no-sync", "--since", "4h", "--type", "shop.*")["stuck"]:
        document = found(*shlex.split(row["command"])[1:])
        assert document["total"] == row["count"]
    assert [row["command"].split(" --key ")[1] for row in found("stuck", "--no-sync", "--key", "o'17")["stuck"]] == [
        "'o'\"'\"'17'"
    ]
    assert [row["kind"] for row in found("stuck", "--no-sync", "--group", "bill*", "--topic", "orders")["stuck"]] == [
        "held",
        "held",
    ]
    assert [row["count"] for row in found("stuck", "--no-sync", "--error", "toolarge")["stuck"]] == [1]
    assert found("stuck", "--no-sync", "--until", "8h")["total"] == 1
    assert told("stuck", "--no-sync", "--key", "none") == "Nothing of that is stuck.\n"
    assert "To look closer:" in told("stuck", "--no-sync")


def test_filters_that_a_database_does_not_know_go_on_over_pages(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, 8):
        tables.hold(number)
        tables.park(number)
    monkeypatch.setattr("postroom.cli.scan._PAGE", 2)
    monkeypatch.setattr("postroom.cli.scan._PAGE_WITH_PAYLOADS", 3)
    for listed in (held, parked):
        assert listed("--match", "payload.n in [1, 4, 7]") == [1, 4, 7]
        assert listed("--match", "payload.n in [1, 4, 7]", "--sort", "newest") == [7, 4, 1]
        assert listed("--sort", "newest", "--after", "5") == [4, 3, 2, 1]
        assert listed("--limit", "7") == [1, 2, 3, 4, 5, 6, 7]
    assert found("stuck", "--no-sync")["total"] == 14
