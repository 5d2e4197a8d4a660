"""What the demo shows: progress, what is done to the system, the commands it runs, the ledger."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from .ledger import Line

_STEPS = {
    "demo_order": "orders placed",
    "demo_payment": "paid",
    "demo_shipment": "shipped",
    "demo_completion": "completed",
}
_TELL_EVERY = 2.0


class Screen:
    """On a terminal: bars. Elsewhere: a line now and then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._told = 0.0
        self._last = ""
        self._began = time.monotonic()

    @contextmanager
    def progress(self, total: int) -> Iterator[None]:
        """Show how far each service is, out of ``total`` orders."""
        columns = (TextColumn("{task.description:>14}"), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._tasks = {name: self._progress.add_task(text, total=total) for name, text in _STEPS.items()}
        try:
            self._progress.start()
            yield
        finally:
            self._progress.stop()

    def update(self, counts: Mapping[str, int]) -> None:
        """How many orders each service has seen."""
        if self._progress is not None:
            for name, count in counts.items():
                self._progress.update(self._tasks[name], completed=count)
        line = ", ".join(f"{counts[name]} {text}" for name, text in _STEPS.items())
        if not self._console.is_terminal and time.monotonic() - self._told > _TELL_EVERY and line != self._last:
            self._told, self._last = time.monotonic(), line
            self.say(line)

    def say(self, text: str) -> None:
        """One line, with the time since the start."""
        self._console.print(f"[dim]{time.monotonic() - self._began:5.1f} s[/dim]  {text}", highlight=False)

    def command(self, line: str, output: str) -> None:
        """A command of the operator, and what it printed."""
        self._console.print(f"\n[bold]$ {line}[/bold]", highlight=False)
        self._console.print(output.rstrip() + "\n", highlight=False, markup=False, soft_wrap=True)

    def ledger(self, lines: list[Line]) -> None:
        """The closing table."""
        table = Table(title="Ledger, counted from the database and the topics", title_justify="left")
        table.add_column("", no_wrap=True)
        table.add_column("count", justify="right")
        table.add_column("")
        table.add_column("", overflow="fold")
        for line in lines:
            mark = "[green]✓[/green]" if line.right else "[bold red]✗[/bold red]"
            table.add_row(line.name, f"{line.count:,}", mark, line.note)
        self._console.print(table)
