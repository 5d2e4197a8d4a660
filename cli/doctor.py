"""``postroom doctor``: is all as it should be, and what to do where it is not?"""

from contextlib import closing
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import click

from .app import App
from .command import Command
from .errors import Incomplete, masked

if TYPE_CHECKING:
    from .checkup import Finding

_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


@click.command("doctor", cls=Command)
@click.argument("target", metavar="[MODULE:INBOX]", required=False)
@click.pass_obj
def doctor(app: App, target: str | None) -> None:
    """Look whether settings, database, Kafka, topics and retentions are as they should be; change nothing.

    With an inbox its topics are looked at, too: whether they are there, and whether they, and its dead letters, keep
    messages for longer than the inbox remembers them. Exit code 1 where there is a problem.

    \b
    Examples:
      postroom doctor
      postroom doctor shop.billing:inbox
      postroom doctor shop.billing:inbox --json | jq '.findings[] | select(.state != "ok")'
    """
    from . import output
    from .checkup import CHECKS, Patient
    from .inbox import load_inbox

    inbox = None if target is None else load_inbox(target)
    with closing(Patient(app, inbox)) as patient:
        findings = [finding for check in CHECKS for finding in check(patient)]
    secrets = app.secrets()
    findings = [replace(each, told=masked(each.told, secrets)) for each in findings]
    problems = sum(finding.state == "problem" for finding in findings)
    warnings = sum(finding.state == "warning" for finding in findings)
    if app.as_json:
        output.emit({"problems": problems, "warnings": warnings, "findings": [asdict(each) for each in findings]})
    else:
        _print(findings)
        if target is None:
            click.echo("\nIts topics, too: postroom doctor MODULE:INBOX")
    if problems:
        raise Incomplete(f"There {'is 1 problem' if problems == 1 else f'are {problems} problems'}.")


def _print(findings: "list[Finding]") -> None:
    from rich.text import Text

    from . import output

    table = output.table("check", "of", "", "what", "what to do")
    table.expand = True
    for index, ratio in ((1, 2), (3, 4), (4, 3)):
        column = table.columns[index]
        column.ratio, column.no_wrap, column.overflow = ratio, False, "fold"
    for each in findings:
        state = Text(each.state, style=_STYLES[each.state])
        table.add_row(
            each.check, output.clean(each.subject) or "-", state, output.clean(each.told), output.clean(each.todo)
        )
    output.console().print(table)
