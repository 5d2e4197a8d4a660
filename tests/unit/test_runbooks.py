"""The runbooks that alerts link to: each is there, and says the same things in the same order."""

import re
from pathlib import Path

import pytest

RUNBOOKS = (
    *("backlog-grows", "consumer-lag", "dead-letters-grow", "fenced-relay", "long-transaction"),
    *("kafka-down", "replay-after-a-fix", "disk-full"),
)
SECTIONS = (
    *("What you see", "What it means", "First look", "Causes and decisions"),
    *("Mend it", "It is over when", "Never"),
)


@pytest.mark.parametrize("name", RUNBOOKS)
def test_a_runbook_says_what_to_do(rooms: Path, name: str) -> None:
    titles = re.findall(r"^## (.*)$", (rooms / "docs" / "runbooks" / f"{name}.md").read_text(), re.MULTILINE)
    assert tuple(titles) == SECTIONS
