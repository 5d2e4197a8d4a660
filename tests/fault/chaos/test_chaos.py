"""A short run under fire. `make chaos` makes longer ones, with other seeds."""

from pathlib import Path

import pytest

from .campaign import run

SEED = 1
SECONDS = 60.0


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("postroom_real_kafka")
def test_under_fire_nothing_is_lost_doubled_or_out_of_order(tmp_path: Path) -> None:
    told: list[str] = []
    result = run(SEED, SECONDS, tmp_path, told.append, pace=0.05)

    assert result.findings == [], told
    assert result.totals["orders committed"] > 100
    assert result.totals["dead letters"] > 0
