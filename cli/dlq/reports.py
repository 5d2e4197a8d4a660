"""What replays tell: plans, drafts of plans, and what came of a run."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from .. import output
from ..app import App
from ..errors import Incomplete

if TYPE_CHECKING:
    from ...dlq import Draft, Pace, Plan, Ran

_EXAMPLES = 3
_SHOWN = 10
_WIDE = 120
_TOLD = {"failed-again": " (each is a dead letter of its own now)"}
_NAMES = {"replayed": "not confirmed", "planned": "left", "failed-again": "failed again"}


def report(app: App, ran: "Ran", draft: "Draft | None", *, waited: bool) -> None:
    """What came of a run. Raises Incomplete where something is left to do, click.Abort where it was interrupted."""
    plan, counts = ran.plan, ran.plan.counts
    if app.as_json:
        now = {"replayed_now": ran.replayed, "interrupted": ran.interrupted}
        output.emit({**_summary(plan), **now, **_left_out(draft)})
    else:
        click.echo(f"plan           {plan.id} ({plan.state})")
        click.echo(f"replayed       {ran.replayed}" + (" (the relay publishes them)" if ran.replayed else ""))
        for state in ("confirmed", "failed-again", "replayed", "dead", "discarded", "planned"):
            if counts[state] and (waited or state != "replayed"):
                click.echo(f"{_NAMES.get(state, state):<14} {counts[state]}{_TOLD.get(state, '')}")
        for refusal in draft.refused if draft else ():
            click.echo(f"refused        {refusal.count}: {output.clean(refusal.reason)}")
        if plan.told:
            click.echo(f"\nIt stopped: {output.clean(plan.told)}")
        _tell_rest(plan)
        if counts["replayed"] and not waited and not left_of(plan):
            click.echo(f"\nTo see what becomes of them: postroom dlq plans {plan.id}")
    if ran.interrupted:
        raise click.Abort
    if problems := _problems(ran, draft, waited=waited):
        raise Incomplete("; ".join(problems) + ".")


def _problems(ran: "Ran", draft: "Draft | None", *, waited: bool) -> list[str]:
    plan, counts = ran.plan, ran.plan.counts
    found = []
    if counts["planned"]:
        found.append(f"{output.counted(counts['planned'], 'dead letter')} of plan {plan.id} did not go")
    if counts["failed-again"]:
        found.append(f"{counts['failed-again']} failed again")
    if waited and counts["replayed"]:
        found.append(f"{output.counted(counts['replayed'], 'dead letter')} could not be confirmed in time")
    if draft and draft.refused:
        refused = sum(each.count for each in draft.refused)
        found.append(f"{output.counted(refused, 'dead letter')} could not be replayed")
    return found


def tell_draft(app: App, draft: "Draft", *, dry_run: bool) -> None:
    """What a plan would hold. Raises Incomplete where nothing of it can go, though it matched."""
    if app.as_json:
        targets = [{"topic": topic, "group": group, "count": count} for (topic, group), count in draft.targets.items()]
        output.emit({"would_replay": draft.letters, "targets": targets, **_left_out(draft), "dry_run": dry_run})
    else:
        if draft.letters:
            click.echo(f"Would replay {output.counted(len(draft.letters), 'dead letter')} to {targets_of(draft)}:")
            shown = ", ".join(map(str, draft.letters[:_SHOWN]))
            click.echo(
                f"  {shown}" + (f" and {len(draft.letters) - _SHOWN} more" if len(draft.letters) > _SHOWN else "")
            )
        else:
            click.echo("Nothing to replay.")
        if others := {state: count for state, count in draft.elsewhere.items() if state != "planned"}:
            told = ", ".join(f"{count} {state}" for state, count in sorted(others.items()))
            click.echo(f"Left out: {told}.")
        for plan in draft.plans:
            click.echo(f"Some are in plan {plan} already; to go on with it: postroom dlq replay --plan {plan}")
        tell_refused(draft)
    if not dry_run and (draft.refused or draft.plans):
        count = sum(each.count for each in draft.refused) + draft.elsewhere["planned"]
        raise Incomplete(f"{output.counted(count, 'dead letter')} could not be replayed.")


def tell_refused(draft: "Draft") -> None:
    """Why some are not in the plan."""
    for refusal in draft.refused:
        examples = ", ".join(map(str, refusal.examples[:_EXAMPLES]))
        more = f" and {refusal.count - _EXAMPLES} more" if refusal.count > _EXAMPLES else ""
        click.echo(output.clean(f"Refused: {examples}{more}. {refusal.reason}"))


def tell_frozen(app: App, plan: "Plan", draft: "Draft") -> None:
    """A plan that was made, and not begun."""
    if app.as_json:
        output.emit({**_summary(plan), **_left_out(draft)})
        return
    click.echo(f"Plan {plan.id} holds {output.counted(plan.total, 'dead letter')}.")
    click.echo(f"To replay them: postroom dlq replay --plan {plan.id}")


def tell_plans(app: App, found: "Sequence[Plan]") -> None:
    """Plans, and how far each is."""
    if app.as_json:
        output.emit({"plans": [_summary(plan) for plan in found]})
        return
    if not found:
        click.echo("There are no plans.")
        return
    console = output.console()
    wide = console.width >= _WIDE
    numbers = ("letters", "left", "sent", "confirmed", "failed")
    names = ("plan", "made", *(("by",) if wide else ()), *numbers, "state", "filter")
    table = output.table(*names, right=("plan", *numbers))
    table.expand, table.collapse_padding = True, not wide
    for column in table.columns:
        column.max_width = {"by": 24}.get(str(column.header))
        column.ratio = 1 if column.header == "filter" else None
    for plan in found:
        cells = {"plan": plan.id, "made": output.ago(plan.created_at), "by": plan.actor, "letters": plan.total}
        cells |= {"state": plan.state, "filter": plan.wanted, **_progress(plan)}
        table.add_row(*(output.clean(str(cells[name])) for name in names))
    console.print(table)
    for plan in found:
        if plan.told:
            click.echo(f"\nPlan {plan.id} {plan.state}: {output.clean(plan.told)}")
    click.echo(f"\nFor one of them: postroom dlq plans {found[0].id}")


def tell_plan(app: App, plan: "Plan") -> None:
    """All about one plan."""
    from ..record import print_pairs

    if app.as_json:
        output.emit({"plans": [_summary(plan)]})
        return
    pace = plan.pace
    facts = {
        "plan": str(plan.id),
        "state": plan.state + (f": {plan.told}" if plan.told else ""),
        "made": f"{output.local(plan.created_at)} by {plan.actor}",
        "changed": output.local(plan.changed_at),
        "reason": plan.reason,
        "filter": plan.wanted,
        "to": ", ".join(f"{topic} (group {group or 'any'})" for topic, group in plan.targets),
        "steps": ", ".join(map(str, pace.steps)) + ", the rest" if pace.steps else None,
        "rate": f"{pace.rate:g} a second at the most" if pace.rate else None,
        "stops": f"when more than {pace.max_failures:.0%} of a step fail again"
        if pace.max_failures is not None
        else None,
        "letters": str(plan.total),
        **{name: str(count) for name, count in _progress(plan).items() if count},
    }
    print_pairs(output.console(), [(name, value) for name, value in facts.items() if value], style="bold")
    _tell_rest(plan)


def _progress(plan: "Plan") -> dict[str, int]:
    """So many of its letters have not gone, wait for their inbox, were handled, died again."""
    counts = plan.counts
    return {
        "left": counts["planned"],
        "sent": counts["replayed"],
        "confirmed": counts["confirmed"],
        "failed": counts["failed-again"],
    }


def _tell_rest(plan: "Plan") -> None:
    if left_of(plan):
        click.echo(f"\nTo go on: postroom dlq replay --plan {plan.id}; to give it up: postroom dlq cancel {plan.id}")


def _summary(plan: "Plan") -> dict[str, Any]:
    return {
        "plan": plan.id,
        "state": plan.state,
        "told": plan.told,
        "created_at": plan.created_at,
        "actor": plan.actor,
        "reason": plan.reason,
        "filter": plan.wanted,
        "targets": [{"topic": topic, "group": group} for topic, group in plan.targets],
        "total": plan.total,
        "steps": list(plan.pace.steps),
        "rate": plan.pace.rate,
        "max_failures": plan.pace.max_failures,
        "counts": dict(plan.counts),
    }


def _left_out(draft: "Draft | None") -> dict[str, Any]:
    if draft is None:
        return {}
    refused = [{"reason": each.reason, "count": each.count, "examples": each.examples} for each in draft.refused]
    return {"refused": refused, "elsewhere": dict(draft.elsewhere), "in_plans": draft.plans}


def left_of(plan: "Plan") -> int:
    """How many of its letters have not gone."""
    return plan.counts["planned"]


def paced(pace: "Pace") -> str:
    """How a plan goes, for a question."""
    parts = [f"in steps of {', '.join(map(str, pace.steps))} and the rest" if pace.steps else ""]
    parts.append(f"{pace.rate:g} a second at the most" if pace.rate else "")
    told = ", ".join(filter(None, parts))
    return f", {told}" if told else ""


def targets_of(draft: "Draft") -> str:
    """Where it goes, for people."""
    targets = [f"{topic} (group {group or 'any'})" for topic, group in sorted(draft.targets, key=str)]
    more = f" and {len(targets) - _EXAMPLES} more" if len(targets) > _EXAMPLES else ""
    return ", ".join(targets[:_EXAMPLES]) + more
