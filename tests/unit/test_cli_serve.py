"""A signal ends a wait, whatever it comes in the midst of."""

import os
import signal
import sys
from types import FrameType
from typing import Any

from postroom.cli.serve import Signals
from postroom.messaging.observer import unobserved


def test_a_signal_in_the_midst_of_a_wait_is_never_lost() -> None:
    """It comes at each line of Python that a wait runs. An Event's lock is held at some of them."""
    lines = 0
    while True:
        lines += 1
        left = lines

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal left
            if event == "line" and frame.f_code.co_name != "_handle":
                left -= 1
                if left == 0:
                    signal.raise_signal(signal.SIGINT)
            return trace

        with Signals(unobserved) as signals:
            before = sys.gettrace()
            sys.settrace(trace)
            try:
                signals.wait(0.001)
            finally:
                sys.settrace(before)
            if left > 0:
                break
            assert signals.wait(60)
    assert lines > 3, "there is something to interrupt"


def test_it_is_told_once_and_waits_end_at_once_from_then_on() -> None:
    told: list[str] = []
    with Signals(lambda step, /, **facts: told.append(f"{step} {facts['signal']}")) as signals:
        assert not signals.wait(0.0)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.wait(60)
        assert signals.wait(60)
        assert signals.came
    assert told == ["signalled SIGTERM"]
