"""What `dlq stats` prints tells the error, whatever the width."""

import io
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from postroom.cli.dlq.letters import print_statistics
from postroom.dlq import Group, State, Statistics

NOW = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)


@pytest.mark.parametrize("width", range(80, 201, 20))
def test_the_error_is_told_at_every_width(width: int) -> None:
    facts = ("TimeoutError", None, "shop.billing.charge", "orders", "billing", 1, [0] * 23 + [3])
    group = Group("3d00df7439583e6e", 3, NOW, NOW, Counter({str(State.DEAD): 3}), *facts)
    console = Console(width=width, file=io.StringIO(), highlight=False)

    print_statistics(console, Statistics([group], 1, 3, NOW - timedelta(days=1), NOW), "fingerprint", {1: "no answer"})

    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    assert "TimeoutError: no answer" in printed
    assert all(len(line) <= width for line in printed.splitlines())
