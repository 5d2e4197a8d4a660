"""``make chaos``: services under fire, and whether every promise was kept.

Exit code 0 when nothing was found, 1 otherwise. The seed says it all again.
"""

import argparse
import secrets
import sys
import time
from pathlib import Path

from .campaign import CLIENTS, Result, run
from .machine import able
from .schedule import make_schedule

_SECONDS = 60.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="of the schedule; by default a new one each time")
    parser.add_argument("--seconds", type=float, default=_SECONDS, help="of fire (%(default)g); 600 is a long run")
    parser.add_argument(
        "--pace", type=float, default=0.02, help="seconds between two transactions of a host (%(default)g)"
    )
    parser.add_argument("--runs", type=int, default=1, help="so many runs, with the seeds that follow")
    parser.add_argument("--client", choices=CLIENTS, help="this Kafka client on both hosts")
    parser.add_argument("--folder", type=Path, default=Path("build/chaos"), help="for logs and journals (%(default)s)")
    parser.add_argument("--schedule", action="store_true", help="only print what would be done")
    told = parser.parse_args()
    first = secrets.randbelow(1_000_000) if told.seed is None else told.seed
    missing = able()
    for what, reason in missing.items():
        print(f"without {what} faults: {reason}")
    found = 0
    for seed in range(first, first + told.runs):
        if told.schedule:
            for fault in make_schedule(seed, told.seconds, {"disk", "clock"} - missing.keys()):
                print(fault)
            continue
        print(f"seed {seed}, {told.seconds:g} s of fire")
        began = time.monotonic()

        def tell(text: str, began: float = began) -> None:
            print(f"[{time.monotonic() - began:6.1f}] {text}", flush=True)

        folder = told.folder / f"{seed}-{time.strftime('%H%M%S')}"
        clients = [told.client] if told.client else CLIENTS
        result = run(seed, told.seconds, folder, tell, pace=told.pace, clients=clients)
        _print(result)
        found += len(result.findings)
    return 1 if found else 0


def _print(result: Result) -> None:
    print(f"\nfaults: {', '.join(f'{kind} {count}' for kind, count in sorted(result.faults.items()))}")
    print(f"starts: {', '.join(f'{name} {count}' for name, count in sorted(result.starts.items()))}")
    for name, count in result.totals.items():
        print(f"{name:>40}  {count}")
    print(f"{'all was done after the fire, seconds':>40}  {result.quiet_after:.1f}")
    for finding in result.findings:
        print(f"FOUND  {finding}")
    if result.findings:
        print(f"\nseed {result.seed}: {len(result.findings)} findings; logs and journals are in {result.folder}")
    else:
        print(f"\nseed {result.seed}: nothing lost, nothing twice, no key out of order, every poison one dead letter")


if __name__ == "__main__":
    sys.exit(main())
