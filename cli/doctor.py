"""``postroom doctor``: is all as it should be, and what to do where it is not?"""

from collections import Counter
from contextlib import closing
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import click

from .app import App
from .command import Command
from .errors import Incomplete, masked

if TYPE_CHECKING:
    from .checkup.patient import Finding, State

_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red", "unknown": "cyan"}


@click.command("doctor", cls=Command)
@click.argument("target", metavar="[MODULE:INBOX]", required=False)
@click.option("--problems", "problems_only", is_flag=True, help="Only what is not ok.")
@click.pass_obj
def doctor(app: App, target: str | None, *, problems_only: bool) -> None:
    """Look at all that Postroom depends on, and say what to do where it is not as it should be; change nothing.

    Settings, versions, the database with its durability, rights, clock and long transactions, relays and what waits,
    Kafka with topics, copies, sizes and retentions, and how far groups are behind. With an inbox its topics and dead
    letters are looked at, too. Each look is given up after 30 seconds. Exit code 1 where there is a problem; what could
    not be looked at is unknown, and says which right is missing.

    \b
    Examples:
      postroom doctor
      postroom doctor shop.billing:inbox
      postroom doctor --problems
      postroom doctor shop.billing:inbox --json | jq '.findings[] | select(.state != "ok")'
    """
    from . import output
    from .checkup.examine import CHECKS, examine
    from .checkup.patient import Patient
    from .inbox import load_inbox

    inbox = None if target is None else load_inbox(target)
    with (
        closing(Patient(app, inbox)) as patient,
        output.progress("Looking", len(CHECKS), hidden=app.as_json) as done,
    ):
        findings = examine(patient, on_done=lambda: done(1))
    secrets = app.secrets()
    findings = [
        replace(
            each,
            subject=masked(each.subject, secrets),
            told=masked(each.told, secrets),
            todo=masked(each.todo, secrets),
        )
        for each in findings
    ]
    counts = Counter(each.state for each in findings)
    if problems_only:
        findings = [each for each in findings if each.state != "ok"]
    if app.as_json:
        numbers = {"problems": counts["problem"], "warnings": counts["warning"], "unknown": counts["unknown"]}
        output.emit({**numbers, "findings": [asdict(each) for each in findings]})
    else:
        if findings:
            _print(findings)
        click.echo(f"\n{_summary(counts)}")
        if target is None:
            click.echo("Its topics, too: postroom doctor MODULE:INBOX")
    if counts["problem"]:
        raise Incomplete(
            f"There {'is' if counts['problem'] == 1 else 'are'} {output.counted(counts['problem'], 'problem')}."
        )


def _summary(counts: "Counter[State]") -> str:
    from . import output

    told = [f"{counts['ok']} ok", output.counted(counts["warning"], "warning")]
    if counts["unknown"]:
        told.append(f"{counts['unknown']} unknown")
    return f"{', '.join(told)}, {output.counted(counts['problem'], 'problem')}."


def _print(findings: "list[Finding]") -> None:
    """What to do stands below what was found, so that both have room on a narrow terminal."""
    from rich.text import Text

    from . import output

    table = output.table("", "check", "what, and what to do")
    table.expand = True
    for index, ratio in ((1, 2), (2, 5)):
        column = table.columns[index]
        column.ratio, column.no_wrap, column.overflow = ratio, False, "fold"
    for each in findings:
        place = f"{each.check} {output.clean(each.subject)}".rstrip()
        what = Text(output.clean(each.told))
        if each.todo:
            what.append(f"\n→ {output.clean(each.todo)}", style="bold")
        table.add_row(Text(each.state, style=_STYLES[each.state]), place, what)
    output.console().print(table)
