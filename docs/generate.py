"""Writes what the reference says from the code itself: `make reference`. A test compares.

.venv/bin/python docs/generate.py
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from postroom.cli import metrics as of_daemons
from postroom.cli.events import EVENTS, MESSAGE
from postroom.cli.root import postroom
from postroom.cli.settings import PREFIX, Settings
from postroom.messaging.metrics import MAX_SERIES
from postroom.outbox import schema

REFERENCE = Path(__file__).parent / "reference"
COMMON = "Common options:"


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
        "| in `postroom.toml` | in the environment | default | meaning |",
        "|---|---|---|---|",
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
        lines += ["", f"## {who}", "", "| metric | kind | labels | meaning |", "|---|---|---|---|"]
        for metric in found:
            labels = ", ".join(f"`{label}`" for label in metric.labels)
            lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.text} |")
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
        "| event | level | service | | facts | meaning |",
        "|---|---|---|---|---|---|",
    ]
    for event in EVENTS:
        facts = ", ".join(f"`{fact}`" for fact in event.facts)
        mark = "✉" if event.of_message else ""
        lines.append(f"| `{event.name}` | {event.level} | {event.services} | {mark} | {facts} | {event.meaning} |")
    return "\n".join(lines) + "\n"


def _row(name: str, variable: str, field: FieldInfo, model: type[BaseModel]) -> str:
    default = field.get_default(call_default_factory=True, validated_data={})
    limits = [f"{sign} {getattr(m, attr)}" for m in field.metadata for attr, sign in _SIGNS if hasattr(m, attr)]
    meaning = " ".join(_docstrings(model)[name.rpartition(".")[2]].split()).replace("|", "\\|").replace("``", "`")
    allowed = f" ({', '.join(limits)})" if limits else ""
    return f"| `{name}` | `{PREFIX}{variable.upper()}` | `{default}`{allowed} | {meaning} |"


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
        command, info_name=path, terminal_width=100, max_content_width=100, help_option_names=["-h", "--help"]
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
        REFERENCE / "schema-postgresql.sql": schema.script("postgres"),
        REFERENCE / "schema-sqlite.sql": schema.script("sqlite"),
    }


if __name__ == "__main__":
    for path, text in generated().items():
        path.write_text(text)
