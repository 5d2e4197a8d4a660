"""What this connection may do with the tables: all that its kind of role needs, and no more."""

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from .patient import Finding, Patient, State

if TYPE_CHECKING:
    from ...outbox.grants import Right

_TOLD = 4


def privileges(patient: Patient) -> Iterator[Finding]:
    """The role is one of those of `postroom db grants`, in full, and neither a superuser nor the tables' owner."""
    if not patient.on_postgres:
        return
    from ...outbox.grants import KINDS, held_params, rights

    [(role, is_there, is_superuser, is_owner, as_caller)] = patient.rows("myself", file="grants")
    if not is_there:
        return
    if is_superuser or is_owner:
        why = "is a superuser" if is_superuser else "owns the tables"
        told = f"{role} {why}: a program that is broken into can change every message"
        todo = "Give each program a role of its own (docs/how-to/least-privilege.md)."
        yield Finding("privileges", role, "warning", told, todo)
        return
    wanted = {kind: rights(patient.names, kind) for kind in KINDS}
    everything = list(dict.fromkeys(right for needed in wanted.values() for right in needed))
    answer = patient.rows("held", held_params(everything), "grants")
    held = {right for right, (_, is_held) in zip(everything, answer, strict=True) if is_held}
    able = [kind for kind in KINDS if held.issuperset(wanted[kind])]
    if able:
        yield Finding("privileges", role, "ok", f"can act as {', '.join(able)}")
    needed = "consumer" if patient.inbox is not None else None
    for kind in KINDS:
        if kind not in able and (kind == needed or _is_meant(wanted[kind], held, [wanted[one] for one in able])):
            missing = [right for right in wanted[kind] if right not in held]
            more = f" and {len(missing) - _TOLD} more" if len(missing) > _TOLD else ""
            told = f"{role} lacks for a role of this kind: {'; '.join(map(str, missing[:_TOLD]))}{more}"
            state: State = "problem" if kind == needed else "warning"
            yield Finding("privileges", kind, state, told, _grant(role, [*able, kind]))
    if as_caller and "relay" in able:
        told = "the functions that make and drop partitions do not run as the tables' owner, which they need"
        yield Finding("privileges", "functions", "problem", told, _grant(role, able))
    if not able and all(right.sort == "function" for right in held):  # which everybody may call at first
        told = f"{role} has no right on the tables"
        yield Finding("privileges", role, "problem", told, _grant(role, ["KIND"]))


def _is_meant(needed: "Sequence[Right]", held: "Collection[Right]", others: "Sequence[Sequence[Right]]") -> bool:
    """Whether a role has most of what a kind needs, and some of it for nothing else that it is able to be."""
    explained = {right for each in others for right in each}
    there = [right for right in needed if right in held]
    # A right on a table is one on its columns.
    for_this = [right for right in there if not explained & {right, right._replace(column="")}]
    return 2 * len(there) > len(needed) and bool(for_this)


def _grant(role: str, kinds: Sequence[str]) -> str:
    """All kinds at once: what is not named in a run is taken back."""
    return f"As the tables' owner: postroom db grants {' '.join(f'--role {kind}={role}' for kind in kinds)} --apply"
