"""What the nemesis does, and when: a function of the seed, so that a run can be repeated."""

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

HOSTS = ("a", "b")
RELAYS = tuple(f"relay-{host}" for host in HOSTS)
MEMBERS = tuple(f"{service}-{host}" for service in ("billing", "shipping") for host in HOSTS)
WRITERS = tuple(f"writer-{host}" for host in HOSTS)
LINKS = tuple(f"{host} to {server}" for host in HOSTS for server in ("postgres", "kafka"))
SERVERS = ("kafka", "postgres")

_CALM = 2.0
_GAP = (1.5, 4.5)


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to do harm. ``seconds``: how long it lasts, from and to; of ``targets`` and ``details`` one is chosen.

    ``needs``: what the machine must be able to; ``times``: how often it comes in a round.
    """

    targets: Sequence[str]
    seconds: tuple[float, float] = (0.0, 0.0)
    details: Sequence[str] = ("",)
    needs: str = ""
    times: int = 1


KINDS: Mapping[str, Kind] = {
    "kill": Kind((*RELAYS, *MEMBERS, *WRITERS), times=4),
    "end": Kind((*RELAYS, *MEMBERS)),
    "freeze": Kind((*RELAYS, *MEMBERS), (1.0, 8.0), times=2),
    "join": Kind(("billing-x", "shipping-x"), (3.0, 10.0)),
    "crash": Kind(SERVERS, (0.2, 4.0), times=2),
    "restart": Kind(SERVERS, (0.2, 4.0)),
    "hang": Kind(SERVERS, (1.0, 6.0)),
    "cut": Kind(LINKS, (0.2, 6.0), times=2),
    "half-open": Kind(LINKS, (1.0, 8.0), ("both", "to-server", "to-client"), times=2),
    "delay": Kind(LINKS, (2.0, 8.0), ("0.02", "0.1", "0.4")),
    "disconnect all": Kind(("postgres",)),
    "late commit": Kind(("postgres",), (2.0, 8.0), ("commit", "roll back")),
    "disk full": Kind(SERVERS, (1.0, 5.0), needs="disk", times=2),
    "clock": Kind((*HOSTS, "postgres"), (2.0, 8.0), ("+30", "-30", "+2", "-2"), needs="clock"),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """``at``: seconds after the beginning; ``seconds``: how long it lasts, 0 for what is over at once."""

    at: float
    kind: str
    target: str
    seconds: float
    detail: str

    @property
    def resource(self) -> str:
        """What must not have another fault meanwhile. A transaction and lost connections harm no server."""
        return _resource(self.kind, self.target)

    def __str__(self) -> str:
        lasting = f" for {self.seconds:.1f} s" if self.seconds else ""
        return f"{self.at:6.1f} s  {self.kind} {self.target}{f' {self.detail}' if self.detail else ''}{lasting}"


def make_schedule(seed: int, seconds: float, able: Collection[str]) -> list[Fault]:
    """The faults of a run of so many ``seconds``, by time; the last one is over when it ends.

    ``able``: which needs of kinds can be met here, of "disk" and "clock". Every kind comes once before any of them
    comes more often than its share.
    """
    rng = random.Random(seed)
    busy: dict[str, float] = {}
    faults: list[Fault] = []
    at = _CALM
    for name in _deck(rng, able):
        kind = KINDS[name]
        free_at = {target: busy.get(_resource(name, target), 0.0) for target in kind.targets}
        at = max(at, min(free_at.values()))
        target = rng.choice([target for target, free in free_at.items() if free <= at])
        fault = Fault(round(at, 1), name, target, round(rng.uniform(*kind.seconds), 1), rng.choice(kind.details))
        if fault.at + fault.seconds > seconds:
            return faults
        busy[fault.resource] = fault.at + fault.seconds + 1.0
        faults.append(fault)
        at += rng.uniform(*_GAP)
    return faults


def _resource(kind: str, target: str) -> str:
    return f"{kind} {target}" if kind in {"clock", "late commit", "disconnect all"} else target


def _deck(rng: random.Random, able: Collection[str]) -> Iterator[str]:
    names = [name for name, kind in KINDS.items() if not kind.needs or kind.needs in able]
    first = True
    while True:
        cards = names if first else [name for name in names for _ in range(KINDS[name].times)]
        yield from rng.sample(cards, len(cards))
        first = False
