"""``postroom dlq replay|plans|cancel``: frozen plans, and going through with them."""

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from ..actor import actor
from ..app import App
from ..command import Command, changes_data
from ..finding import finding
from ..params import GROUP, SPAN, TEXT
from .choosing import meant
from .desk import catch, existing_topics, looks
from .find import STATES
from .reports import left_of, paced, report, targets_of, tell_draft, tell_frozen, tell_plan, tell_plans, tell_refused

if TYPE_CHECKING:
    from datetime import timedelta

    from ...dlq import Ledger, Ran
    from ...dlq.plan import Target
    from ..finding import Finding


class Share(click.ParamType[float]):
    """``10%``, or ``0.1``."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d{1,3}(?:\.\d{1,6})?)\s*(%?)", str(value).strip())
        share = -1.0 if match is None else float(match[1]) / (100 if match[2] else 1)
        if not 0 <= share <= 1:
            self.fail(f"{value!r} is no share; write 10% or 0.1.", param, ctx)
        return share


class Steps(click.ParamType[tuple[int, ...]]):
    """``1,10,100``."""

    name = "steps"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        if not re.fullmatch(r"[1-9]\d{0,6}(,[1-9]\d{0,6}){0,19}", str(value).replace(" ", "")):
            self.fail(
                f"{value!r} must be up to 20 numbers from 1 with commas between them, such as 1,10,100.", param, ctx
            )
        return tuple(int(part) for part in str(value).split(","))


@click.command("replay", cls=Command)
@click.argument("letters", nargs=-1, metavar="[ID]...")
@finding(states=STATES)
@click.option("--plan", type=click.IntRange(min=1), help="Go on with this plan, instead of making one.")
@click.option("--canary", type=Steps(), default=(), help="Steps of these sizes first, such as 1,10,100; then the rest.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="No more messages a second.")
@click.option(
    "--max-failures", type=Share(), help="Stop when more of a step fail again, such as 10% [with --canary 10%]."
)
@click.option("--step-timeout", type=SPAN, default="5m", show_default=True, help="So long is waited for a step.")
@click.option(
    "--unconfirmed",
    type=click.Choice(["stop", "go-on"]),
    default="stop",
    show_default=True,
    help="A step that is not settled in time.",
)
@click.option(
    "--wait",
    "await_for",
    type=SPAN,
    is_flag=False,
    flag_value="10m",
    help="Wait until all were handled, or so long [10m].",
)
@click.option("--limit", type=click.IntRange(min=1), help="No more than so many, the first ones.")
@click.option("--again", is_flag=True, help="Those, too, that were replayed, confirmed or discarded before.")
@click.option("--to-group", type=GROUP, help="For this group, where a letter does not tell whose it was.")
@click.option("--every-group", is_flag=True, help="For every group, where a letter does not tell whose it was.")
@click.option("--freeze", is_flag=True, help="Only make the plan.")
@click.option("--reason", type=TEXT, help="Written down with each of them.")
@looks
@changes_data
@click.pass_obj
def replay(
    app: App,
    /,
    *,
    letters: tuple[str, ...],
    found: "Finding",
    plan: int | None,
    canary: tuple[int, ...],
    rate: float | None,
    max_failures: float | None,
    step_timeout: "timedelta",
    unconfirmed: str,
    await_for: "timedelta | None",
    limit: int | None,
    again: bool,
    to_group: str | None,
    every_group: bool,
    freeze: bool,
    reason: str | None,
    fresh: bool,
    named: tuple[str, ...],
    yes: bool,
    dry_run: bool,
) -> None:
    """Send dead letters back to their topics, for the group that failed; all of them, unless told which.

    What matches becomes a frozen plan: what comes later is not in it. Each letter goes once, through the outbox, in
    its key's original order; the relay publishes it. Ctrl-C ends it between two batches with 130; --plan goes on.

    \b
    Examples:
      postroom dlq replay --topic orders --group billing --error Timeout --dry-run
      postroom dlq replay 17 18 --reason "customer was added" --wait
      postroom dlq replay --error Timeout --canary 1,10,100 --rate 50 --max-failures 5%
      postroom dlq replay --plan 7
    """
    from ...dlq import Aim, Pace, draft_plan, make_plan, set_pace
    from .. import output

    _check(letters, found, plan, to_group=to_group, every_group=every_group, more=bool(canary or limit or again))
    waited = await_for is not None
    if freeze and (plan is not None or waited):
        raise click.UsageError("--freeze only makes a plan; give neither --plan nor --wait with it.")
    pace = Pace(canary, rate, 0.1 if max_failures is None and canary else max_failures)
    aim, draft = Aim(to_group, every_group), None
    with ExitStack() as stack:
        ledger = stack.enter_context(app.ledger())
        reader = stack.enter_context(app.reader())
        existing = existing_topics(app)

        def look() -> None:
            catch(app, ledger, reader, existing, named)

        if plan is not None:
            if not _taken_up(app, ledger, plan, waited=waited, unconfirmed=unconfirmed, yes=yes, dry_run=dry_run):
                return
            set_pace(ledger, plan, rate, max_failures)
        else:
            if fresh:
                look()
            asked, words = meant(ledger, letters, found)
            draft = draft_plan(ledger, asked, existing=existing, aim=aim, again=again, limit=limit)
            if dry_run or not draft.letters:
                tell_draft(app, draft, dry_run=dry_run)
                return
            _check_known(ledger, draft.targets, waited=waited, steps=bool(canary), unconfirmed=unconfirmed)
            if not app.as_json:
                tell_refused(draft)
            where = f"{output.counted(len(draft.letters), 'dead letter')} to {targets_of(draft)}"
            output.confirm(f"Replay {where}{paced(pace)}?", yes=yes)
            made, draft = make_plan(
                ledger, asked, existing=existing, actor=actor(), told=words, reason=reason, pace=pace, aim=aim,
                again=again, limit=limit,
            )  # fmt: skip
            if made is None:
                tell_draft(app, draft, dry_run=False)
                return
            plan = made.id
            if freeze:
                tell_frozen(app, made, draft)
                return
        ran = _run(app, ledger, plan, reason, look, step_timeout.total_seconds(), unconfirmed, await_for)
    report(app, ran, draft, waited=waited)


@click.command("plans", cls=Command)
@click.argument("plan", type=click.IntRange(min=1), required=False)
@click.option(
    "--limit", type=click.IntRange(min=1, max=1_000), default=20, show_default=True, help="No more than so many."
)
@click.pass_obj
def plans(app: App, /, *, plan: int | None, limit: int) -> None:
    """List replays, the latest first, and how far each is; or show one.

    \b
    Examples:
      postroom dlq plans
      postroom dlq plans 7
      postroom dlq plans 7 --json | jq '.plans[0].counts'
    """
    from ...dlq import find_plan, find_plans, settle

    with app.ledger() as ledger:
        settle(ledger)
        if plan is not None:
            tell_plan(app, find_plan(ledger, plan))
        else:
            tell_plans(app, find_plans(ledger, limit))


@click.command("cancel", cls=Command)
@click.argument("plan", type=click.IntRange(min=1))
@click.option("--reason", type=TEXT, help="Written down with each of them.")
@changes_data
@click.pass_obj
def cancel(app: App, /, *, plan: int, reason: str | None, yes: bool, dry_run: bool) -> None:
    """Give up what is left of a plan: its letters are dead again.

    \b
    Examples:
      postroom dlq cancel 7 --reason "the fix was wrong"
    """
    from ...dlq import cancel_plan, find_plan
    from .. import output

    with app.ledger() as ledger:
        left = left_of(find_plan(ledger, plan))
        if left and not dry_run:
            output.confirm(f"Give up plan {plan}, {left} left?", yes=yes)
            left = cancel_plan(ledger, plan, actor(), reason)
    if app.as_json:
        output.emit({"plan": plan, "cancelled": left, "dry_run": dry_run})
    elif not left:
        click.echo(f"Nothing is left of plan {plan}: none of its letters waits to be replayed.")
    else:
        told = "would be" if dry_run else "is" if left == 1 else "are"
        click.echo(f"{output.counted(left, 'dead letter')} of plan {plan} {told} dead again.")


def _check(
    letters: Sequence[str], found: "Finding", plan: int | None, *, to_group: str | None, every_group: bool, more: bool
) -> None:
    if letters and found:
        raise click.UsageError("Give ids or filters, not both.")
    if plan is not None and (letters or found or more or to_group or every_group):
        raise click.UsageError(
            "A plan is frozen: with --plan give neither ids, filters, --canary, --limit nor --again."
        )
    if to_group is not None and every_group:
        raise click.UsageError("Give --to-group or --every-group, not both.")


def _taken_up(
    app: App, ledger: "Ledger", plan: int, *, waited: bool, unconfirmed: str, yes: bool, dry_run: bool
) -> bool:
    """Whether to go on with a plan. Raises UsageError where there is none, click.ClickException for a cancelled one."""
    from ...dlq import find_plan
    from .. import output

    going = find_plan(ledger, plan)
    left = left_of(going)
    if dry_run:
        tell_plan(app, going)
        return False
    if going.state == "cancelled":
        raise click.ClickException(f"Plan {plan} was cancelled: what was left of it is dead again.")
    steps = bool(going.pace.steps and left)
    _check_known(ledger, going.targets, waited=waited, steps=steps, unconfirmed=unconfirmed)
    if left:
        output.confirm(f"Go on with plan {plan}, {left} left?", yes=yes)
    return True


def _check_known(ledger: "Ledger", targets: "Iterable[Target]", *, waited: bool, steps: bool, unconfirmed: str) -> None:
    """Raises click.UsageError where something would be waited for that no inbox here can confirm."""
    from ...dlq import knows

    if not waited and (not steps or unconfirmed == "go-on"):
        return
    groups = {group for _, group in targets}
    unknown = groups - knows(ledger, {group for group in groups if group is not None})
    if not unknown:
        return
    who = ", ".join(sorted("a group that nobody told" if group is None else repr(group) for group in unknown))
    instead = "leave --wait out" if waited else "add --unconfirmed go-on, which stops for failures only"
    raise click.UsageError(
        f"There is no inbox of {who} in this database, so nothing here can tell when it handled a replay; {instead}."
    )


def _run(
    app: App,
    ledger: "Ledger",
    plan: int,
    reason: str | None,
    look: Callable[[], None],
    step_timeout: float,
    unconfirmed: str,
    await_for: "timedelta | None",
) -> "Ran":
    from dataclasses import replace

    from ...dlq import await_settled, find_plan, run_plan
    from ...messaging.observer import unobserved
    from .. import output
    from ..serve import Signals

    before = find_plan(ledger, plan)
    with Signals(unobserved) as signals:
        try:
            with output.progress("replaying", left_of(before), hidden=app.as_json) as advance:

                def observe(step: str, /, **facts: Any) -> None:
                    if step == "replayed":
                        advance(facts["count"])

                ran = run_plan(
                    ledger,
                    plan,
                    actor=actor(),
                    reason=reason,
                    look=look,
                    wait=signals.wait,
                    step_timeout=step_timeout,
                    unconfirmed_go_on=unconfirmed == "go-on",
                    observer=observe,
                )
        except BaseException:
            if not app.as_json:
                click.echo(f"To go on: postroom dlq replay --plan {plan}", err=True)
            raise
        if await_for is None or ran.interrupted or ran.plan.state != "done":
            return ran
        with output.progress("waiting for inboxes", ran.unsettled, hidden=app.as_json) as advance:
            left = ran.unsettled

            def waiting(step: str, /, **facts: Any) -> None:
                nonlocal left
                if step == "waiting":
                    advance(left - facts["count"])
                    left = facts["count"]

            settled = await_settled(
                ledger, plan, await_for.total_seconds(), look=look, wait=signals.wait, observer=waiting
            )
        return replace(ran, plan=settled, interrupted=signals.came)
