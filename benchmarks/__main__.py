"""The benchmarks: ours, the client libraries alone, and other relays, alternating on the same servers.

    make bench                                         # the short form, about ten minutes
    make bench ARGS=--full                             # as in RESULTS.md, about an hour and a half
    make bench ARGS="--only drain --rounds 1 --n 20000"

Writes results.json and RESULTS.md. With --only, the results of the other cases stay.
"""

import argparse
import json
import os
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from postroom.testing import ServerUnavailableError

from . import machine, peers, report
from .cases import CASES, FULL, SHORT, Sizes
from .runner import Runner
from .servers import servers

_HERE = Path(__file__).parent
_INTERRUPTED = 130


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="the sizes of RESULTS.md")
    parser.add_argument("--only", action="append", choices=CASES, help="one case; may be given several times")
    parser.add_argument("--rounds", type=int, help="how often everything is measured")
    parser.add_argument("--n", type=int, help="messages (growth: at most; latency: in all; publish: transactions)")
    parser.add_argument("--systems", help="only systems whose names begin so, with commas: postroom,raw/confluent")
    parser.add_argument("--report", action="store_true", help="only write RESULTS.md again, from results.json")
    parser.add_argument("--out", type=Path, default=_HERE, help="where the results go; default %(default)s")
    peers.add_arguments(parser)
    return parser.parse_args()


def _sizes(told: argparse.Namespace) -> Sizes:
    sizes = FULL if told.full else SHORT
    if told.n:
        sizes = sizes.with_n(told.n)
    if told.rounds:
        sizes = replace(sizes, rounds=told.rounds)
    return replace(sizes, prefixes=tuple(told.systems.split(","))) if told.systems else sizes


def main() -> int:
    """Measure, write the results, and return the exit code: 1 where a measurement failed."""
    told, console = _arguments(), Console(stderr=True)
    sizes = _sizes(told)
    results: dict[str, Any] = {"cases": {}}
    stored = told.out / "results.json"
    if told.report:
        (told.out / "RESULTS.md").write_text(report.written(json.loads(stored.read_text())))
        return 0
    here = machine.facts()
    if told.only and stored.exists():
        found = json.loads(stored.read_text())
        if found["machine"]["CPU"] == here["CPU"]:  # figures of two machines do not belong on one page
            results = found
    command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    failed = False
    try:
        with servers() as running:
            others = peers.chosen(told)
            results["machine"] = here | running.facts() | {"Peers": others.summary()}
            for name in told.only or CASES:
                console.rule(name)
                runner = Runner(running, others, console)
                began = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
                CASES[name](runner, sizes)
                results["cases"][name] = {
                    "date": began,
                    "command": command,
                    "load": os.getloadavg()[0],
                    "records": runner.records,
                    "skipped": runner.skipped,
                }
                failed |= any("failed" in record for record in runner.records)
                # After each case, so that an interrupted run keeps what it has.
                told.out.mkdir(parents=True, exist_ok=True)
                stored.write_text(json.dumps(results, indent=1) + "\n")
                (told.out / "RESULTS.md").write_text(report.written(results))
    except ServerUnavailableError as error:
        console.print(f"[red]There is nothing to measure against:[/] {error}", highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted; nothing is left running")
        return _INTERRUPTED
    console.print(f"{told.out / 'RESULTS.md'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
