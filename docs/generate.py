"""Writes what the reference says from the code itself: `make reference`. A test compares.

.venv/bin/python docs/generate.py
"""

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from postroom.cli import metrics as of_daemons
from postroom.cli.errors import exit_code
from postroom.cli.events import EVENTS, MESSAGE
from postroom.cli.root import postroom
from postroom.cli.settings import PREFIX, Settings
from postroom.messaging import errors as tree
from postroom.messaging.correlation import inheriting
from postroom.messaging.dead_letter import (
    MAX_MESSAGE,
    MAX_STACK,
    Failure,
    dead_letter_headers,
    dead_letter_topic,
    replay_headers,
)
from postroom.messaging.envelope import PROPAGATED, REPLAY, RESERVED
from postroom.messaging.errors import PostroomError
from postroom.messaging.headers import MAX_HEADER_BYTES, MAX_HEADERS
from postroom.messaging.message import MAX_KEY_BYTES
from postroom.messaging.metrics import MAX_SERIES
from postroom.messaging.records import Partition, ReceivedRecord
from postroom.outbox import Event, Outbox, schema
from postroom.outbox.entry import LogRow

REFERENCE = Path(__file__).parent / "reference"
COMMON = "Common options:"
#: The packages whose ``__all__`` is the API, and what each page is called.
API = {
    "postroom.outbox": "Publish",
    "postroom.inbox": "Consume",
    "postroom.relay": "Relay",
    "postroom.dlq": "Dead letters",
    "postroom.testing": "Test",
}
_WIDTH = 90  # what a page of the site shows without scrolling


def cli() -> str:
    """The commands with their help."""
    parts = [
        "# Command line\n\nGenerated from the code by `make reference`. Every command also has the common options:\n",
        _block(_help(postroom, "postroom").split(COMMON)[1].split("\n\n")[0]),
    ]
    for path, command in _commands(postroom, "postroom"):
        own, _, rest = _help(command, path).partition(COMMON)
        groups = rest.partition("Commands:")[2]
        after = f"Commands:{groups}" if groups else rest.partition("\n\n")[2]
        parts.append(f"## {path}\n\n{_block(own.rstrip() + (chr(10) * 2 + after.rstrip() if after.strip() else ''))}")
    return "\n".join(parts)


def settings() -> str:
    """The settings with their defaults, ranges and meanings."""
    lines = [
        "# Settings",
        "",
        "Generated from the code by `make reference`. A flag wins over the environment, the environment over",
        "`postroom.toml` (or `--config FILE`), the file over the default. `postroom settings` shows what is in effect.",
        "",
        "| in `postroom.toml`, and in the environment | default | meaning |",
        "|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        section = field.annotation
        if inspect.isclass(section) and issubclass(section, BaseModel):
            lines += [
                _row(f"{name}.{inner}", f"{name}__{inner}", inner_field, section)
                for inner, inner_field in section.model_fields.items()
            ]
        else:
            lines.append(_row(name, name, field, Settings))
    return "\n".join(lines) + "\n"


def errors() -> str:
    """The error tree with verdicts and exit codes."""
    lines = [
        "# Errors",
        "",
        "Generated from the code by `make reference`. All are in `postroom.messaging.errors`. The verdict is what a",
        "daemon does that meets the error: `retry` a bounded number of times, `park` the message, make a `dead-letter`",
        "of it, `pause` and count nothing, `crash` since an operator has to act, or `raise` it to the caller. The exit",
        "code is that of a command that ends with it. An error of yours that is not of this tree is retried.",
        "",
        "| error | verdict | exit code | meaning |",
        "|---|---|---|---|",
    ]
    for depth, kind in _tree(PostroomError, 0):
        indent = "&nbsp;&nbsp;&nbsp;&nbsp;" * depth
        lines.append(f"| {indent}`{kind.__name__}` | {kind.verdict.value} | {exit_code(kind())} | {_text(kind)} |")
    return "\n".join(lines) + "\n"


def api(name: str) -> str:
    """The public names of a package: signatures and docstrings."""
    module = import_module(name)
    parts = [f"# {API[name]}: `{name}`\n", "Generated from the code by `make reference`.\n", f"{_doc(module)}\n"]
    names = sorted(module.__all__, key=lambda public: (public.isupper(), public.islower(), public.lower()))
    return "\n".join([*parts, *(f"## {public}\n\n{_member(public, getattr(module, public))}" for public in names)])


def _member(name: str, value: Any) -> str:
    if inspect.isclass(value):
        return _class(value)
    if inspect.isfunction(value):
        return f"{_code(_signature(value))}\n{_doc(value)}\n"
    return _code(f"{name} = {_literal(value)}")


def _class(kind: type) -> str:
    node = _node(kind)
    bases = [ast.unparse(base) for base in node.bases]
    fields = [
        ast.unparse(line)
        for line in node.body
        if (isinstance(line, ast.AnnAssign) and not ast.unparse(line.target).startswith("_"))
        or (isinstance(line, ast.Assign) and issubclass(kind, Enum))
    ]
    head = f"class {kind.__name__}" + (f"({', '.join(bases)})" if bases else "")
    if issubclass(kind, BaseModel) and kind.__name__.endswith("Settings"):
        fields = []  # docs/reference/settings.md has them all
    parts = [_code("\n    ".join([head, *fields]))]
    parts.append(f"{_doc(kind)}\n" if kind.__doc__ and not kind.__doc__.startswith(f"{kind.__name__}(") else "")
    constructor = kind.__dict__.get("__init__")
    if inspect.isfunction(constructor) and "__init__" in {line.name for line in _functions(node)}:
        parts[0] = _code("\n    ".join([_signature(constructor, kind.__name__), *fields]))
        if constructor.__doc__:
            parts.append(f"{_doc(constructor)}\n")
    if issubclass(kind, BaseModel) and kind.__name__.endswith("Settings"):
        parts.append("[Settings](settings.md) has its fields, their defaults and ranges.\n")
    private = [base for base in kind.__mro__[1:] if _is_private(base)]
    for line in [*_functions(node), *(line for base in private for line in _functions(_node(base)))]:
        if line.name.startswith("_"):
            continue
        member = inspect.getattr_static(kind, line.name)
        text = inspect.cleandoc(ast.get_docstring(line) or "")
        is_property = isinstance(member, property)
        shown = f"{line.name}: {ast.unparse(line.returns)}" if is_property and line.returns else _signature_of(line)
        parts.append(f"### {kind.__name__}.{line.name}\n\n{_code(shown)}\n{_markdown(text)}\n")
    return "\n".join(part for part in parts if part)


def _is_private(base: type) -> bool:
    """A base of ours without a page: what it has is told where it is inherited."""
    return base.__name__.startswith("_") and base.__module__.startswith("postroom.")


def _functions(node: ast.ClassDef) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """The methods, each once: the last of its overloads."""
    found = {line.name: line for line in node.body if isinstance(line, ast.FunctionDef | ast.AsyncFunctionDef)}
    return list(found.values())


def _node(value: Any) -> Any:
    return ast.parse(textwrap.dedent(inspect.getsource(value))).body[0]


def _signature(function: Any, name: str = "") -> str:
    return _signature_of(_node(inspect.unwrap(function)), name)


def _signature_of(node: ast.FunctionDef | ast.AsyncFunctionDef, name: str = "") -> str:
    """As it was written, without ``self``; on one line where it fits, else with a line for each parameter."""
    given = node.args
    for plain in (given.posonlyargs, given.args):
        if plain and plain[0].arg in {"self", "cls"}:
            del plain[0]
    arguments = ast.unparse(given)
    returns = f" -> {ast.unparse(node.returns)}" if node.returns and not name else ""
    start = ("async " if isinstance(node, ast.AsyncFunctionDef) else "") + (f"class {name}" if name else node.name)
    line = f"{start}({arguments}){returns}"
    if len(line) <= _WIDTH:
        return line
    listed = "".join(f"    {one},\n" for one in _parameters(arguments))
    return f"{start}(\n{listed}){returns}"


def _parameters(arguments: str) -> Iterator[str]:
    """Split at the commas that are in no brackets."""
    depth, start = 0, 0
    for place, sign in enumerate(arguments):
        depth += (sign in "([{") - (sign in ")]}")
        if sign == "," and depth == 0:
            yield arguments[start:place].strip()
            start = place + 1
    yield arguments[start:].strip()


def _literal(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{\n" + "".join(f"    {_literal(key)}: {_literal(inner)},\n" for key, inner in value.items()) + "}"
    if isinstance(value, Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, tuple):
        return "(" + ", ".join(_literal(one) for one in value) + ")"
    if isinstance(value, frozenset):
        return "{" + ", ".join(sorted(_literal(one) for one in value)) + "}"
    if dataclasses.is_dataclass(value):
        told = (f"{given.name}={_literal(getattr(value, given.name))}" for given in dataclasses.fields(value))
        return f"{type(value).__name__}({', '.join(told)})"
    return repr(getattr(value, "__value__", value)).removeprefix("typing.")


def _tree(kind: type[PostroomError], depth: int) -> Iterator[tuple[int, type[PostroomError]]]:
    yield depth, kind
    for below in vars(tree).values():
        if inspect.isclass(below) and kind in below.__bases__:
            yield from _tree(below, depth + 1)


def _text(value: Any) -> str:
    return " ".join(_doc(value).split()).replace("|", "\\|")


def _doc(value: type | ModuleType | Any) -> str:
    return _markdown(inspect.cleandoc(value.__doc__ or ""))


def _markdown(text: str) -> str:
    return text.replace("``", "`")


def _code(text: str) -> str:
    return f"```python\n{text}\n```\n"


def metrics() -> str:
    """The metrics with their labels and meanings."""
    lines = [
        "# Metrics",
        "",
        "Generated from the code by `make reference`. Daemons with `health_address` show them at `/metrics`, and",
        "`process_…` besides. A histogram NAME has the series `NAME_bucket`, `NAME_sum` and `NAME_count`. No metric",
        f"has more than {MAX_SERIES:,} series: what would be one more is added up under the label value `other`.",
        "[Monitor](../how-to/monitor.md) says what to watch.",
    ]
    for who, found in of_daemons.catalogue().items():
        lines += ["", f"## {who}", "", "| metric | labels | meaning |", "|---|---|---|"]
        for metric in found:
            labels = ", ".join(f"`{label}`" for label in metric.labels)
            lines.append(f"| `{metric.name}`<br>{metric.kind} | {labels} | {metric.text} |")
    return "\n".join(lines) + "\n"


def logs() -> str:
    """The events of the daemons' logs."""
    message = ", ".join(f"`{fact}`" for fact in MESSAGE)
    lines = [
        "# Log events",
        "",
        "Generated from the code by `make reference`. The daemons write one event a line to stderr, as JSON where that",
        "is no terminal (`log_format`), from `info` up (`log_level`). Each has `event`, `level`, `timestamp`,",
        f"`service`, of an inbox also `group`. An event about one consumed message (✉) also has {message}.",
        "",
        "Passwords are masked. With `redact`, the text of handlers' errors is left out, and so are facts that are in",
        "headers that are to be redacted. Payloads and keys are never logged.",
        "",
        "What a handler logs itself, by structlog or `logging`, becomes a line of the same form from `info` up, with",
        "`correlation_id` and `message_id` of its message, unless `logging` has handlers before the inbox starts.",
        "So one query for a `correlation_id` shows the whole story. Of these lines only passwords are masked.",
        "",
        "| event | level, service | meaning | facts |",
        "|---|---|---|---|",
    ]
    for event in EVENTS:
        facts = ", ".join(f"`{fact}`" for fact in event.facts)
        mark = " ✉" if event.of_message else ""
        lines.append(f"| `{event.name}`{mark} | {event.level}<br>{event.services} | {event.meaning} | {facts} |")
    return "\n".join(lines) + "\n"


def headers() -> str:
    """The headers that go over the wire: their names as the code writes them."""
    parts = [
        "# Headers on the wire",
        "",
        "Generated from the code by `make reference`.",
        "",
        "Key: the message key as UTF-8 bytes. Value: the payload; an event's is the model's JSON. The partition",
        "follows from the key by murmur2, as Java's default partitioner has it.",
        "",
        "## On every message",
        "",
        "CloudEvents 1.0, Kafka protocol binding, binary content mode:",
        "",
        *_headers_table(_of_messages(), ON_MESSAGES),
        f"| anything else | what you gave in `headers=`; {', '.join(sorted(RESERVED))} cannot be given |",
        "",
        f"A message carries at most {MAX_HEADERS} headers of {MAX_HEADER_BYTES // 1024} KiB in all; a key has at most",
        f"{MAX_KEY_BYTES // 1024} KiB; a payload {Outbox(source='/').max_payload_bytes:,} bytes unless",
        "`Outbox(max_payload_bytes=…)` says otherwise.",
        "",
        "## On a dead letter",
        "",
        f"Topic `{dead_letter_topic('{topic}', '{group}')}`. Key, value and headers of the original, byte for byte,",
        "and, by the names of KIP-1191 (`__dlq.…`) and our own:",
        "",
        *_headers_table(_of_dead_letters(), ON_DEAD_LETTERS),
        "",
        "## On a dead letter replayed by `postroom dlq replay`",
        "",
        "The original's headers, without those of its death, and",
        "",
        *_headers_table([name for name, _ in replay_headers([], "billing", "17")], ON_REPLAYS),
        "",
        "## On a copy made by `postroom outbox replay`",
        "",
        "The original's headers, byte for byte, and before them",
        "",
        *_headers_table([REPLAY], ON_COPIES),
    ]
    return "\n".join(parts) + "\n"


NOW = datetime(2026, 11, 21, tzinfo=UTC)


class _Example(Event, topic="orders", key="id", type="shop.order.placed", version=2):
    id: str


def _of_messages() -> list[str]:
    """The names on an event's record, with all that can be there."""
    with inheriting(dict.fromkeys((*PROPAGATED, "causation_id"), "x")):
        entry = Outbox(source="/shop").entry(_Example(id="17"), expires_in=timedelta(1))
    row = LogRow(0, 1, str(entry.id), entry.topic, entry.key, entry.type, entry.payload, entry.headers, NOW)
    return [name for name, _ in row.record().headers]


def _of_dead_letters() -> list[str]:
    record = ReceivedRecord(Partition("orders", 0), 17, None, None, [], NOW)
    failure = Failure(ValueError("no rate"), "shop.billing.charge", 5, NOW, NOW)
    return [name for name, _ in dead_letter_headers(record, "billing", failure, "17")]


def _headers_table(names: list[str], meanings: Mapping[str, str]) -> list[str]:
    """Raises KeyError for a header without a meaning, and ValueError for a meaning without a header."""
    rows = {name: f"| `{name}` | {meanings[name]} |" for name in names}
    if unused := meanings.keys() - rows.keys():
        raise ValueError(f"no record has the headers {sorted(unused)}")
    return ["| header | value |", "|---|---|", *(rows[name] for name in meanings)]


ON_MESSAGES = {
    "ce_specversion": "`1.0`",
    "ce_id": "the message id, a UUID version 7",
    "ce_source": "the `source` of the `Outbox`",
    "ce_type": "the event's type",
    "ce_time": "when the row was written, RFC 3339, UTC",
    "ce_dataschema": "`urn:postroom:schema:<type>:<version>` on events of version 2 and later, or yours if it says its "
    "version; see [Change an event's schema](../how-to/change-a-schema.md)",
    "ce_subject": "the key, where it is printable text, unless you set one",
    "content-type": "`application/json` for events",
    "correlation_id": "yours, else that of the consumed message, else the message id",
    "causation_id": "the id of the message whose handler published this one",
    "expires_at": "with `expires_in=`, RFC 3339, UTC; else that of the consumed message",
    "traceparent": "W3C Trace Context: of the span in which it was published, else passed on from the consumed message",
    "tracestate": "likewise",
}
ON_DEAD_LETTERS = {
    "__dlq.errors.topic": "the topic in which the message stood",
    "__dlq.errors.partition": "its partition",
    "__dlq.errors.offset": "its offset",
    "__dlq.errors.group": "the consumer group that failed",
    "__dlq.errors.delivery.count": "attempts",
    "__dlq.errors.message": f"the error's message, at most {MAX_MESSAGE:,} characters",
    "postroom_dlq_exception": "the exception's class, such as `postroom.messaging.errors.UnknownVersion`",
    "postroom_dlq_stack": f"the end of the traceback, at most {MAX_STACK:,} characters",
    "postroom_dlq_handler": "the handler",
    "postroom_dlq_inbox_id": "the id of its row in `inbox`, only where that is not `ce_id`: known by an "
    "`idempotency_key`, without an id, or with one that a table cannot hold",
    "postroom_dlq_first_failed_at": "RFC 3339, UTC",
    "postroom_dlq_last_failed_at": "RFC 3339, UTC",
    "postroom_dlq_fingerprint": "the same for the same failure at the same place",
    "postroom_dlq_replay_count": "how often this message had been replayed",
}
ON_REPLAYS = {
    "postroom_replay_count": "how often it was replayed, counted from 1",
    "postroom_replay_group": "the only group whose inbox runs it again",
    "postroom_replay_of": "only where it was edited, and so has a new `ce_id`: the inbox id under which the message "
    "died that it replaces",
}
ON_COPIES = {"postroom_replay": "the time and id of the replay, `2026-11-21T16:35:28Z/a5c0704d`"}


def _row(name: str, variable: str, field: FieldInfo, model: type[BaseModel]) -> str:
    default = field.get_default(call_default_factory=True, validated_data={})
    limits = [f"{sign} {getattr(m, attr)}" for m in field.metadata for attr, sign in _SIGNS if hasattr(m, attr)]
    meaning = " ".join(_docstrings(model)[name.rpartition(".")[2]].split()).replace("|", "\\|").replace("``", "`")
    allowed = f" ({', '.join(limits)})" if limits else ""
    return f"| `{name}`<br>`{PREFIX}{variable.upper()}` | `{default}`{allowed} | {meaning} |"


_SIGNS = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))


def _docstrings(model: type[BaseModel]) -> dict[str, str]:
    """The text below each field."""
    body = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            found[field.target.id] = ast.literal_eval(text.value)
    return found


def _commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            yield from _commands(command.commands[name], f"{path} {name}")


def _help(command: click.Command, path: str) -> str:
    context: Any = click.Context(
        command, info_name=path, terminal_width=_WIDTH, max_content_width=_WIDTH, help_option_names=["-h", "--help"]
    )
    return command.get_help(context)


def _block(text: str) -> str:
    lines = (line.rstrip() for line in text.strip("\n").splitlines())
    return "```text\n" + "\n".join(lines) + "\n```\n"


def generated() -> dict[Path, str]:
    """Every generated document and what belongs in it."""
    return {
        REFERENCE / "cli.md": cli(),
        REFERENCE / "logs.md": logs(),
        REFERENCE / "metrics.md": metrics(),
        REFERENCE / "settings.md": settings(),
        REFERENCE / "errors.md": errors(),
        REFERENCE / "headers.md": headers(),
        **{REFERENCE / f"api-{name.rpartition('.')[2]}.md": api(name) for name in API},
        REFERENCE / "schema-postgresql.sql": schema.script("postgres"),
        REFERENCE / "schema-sqlite.sql": schema.script("sqlite"),
    }


if __name__ == "__main__":
    for path, text in generated().items():
        path.write_text(text)
