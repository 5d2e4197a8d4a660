"""The console script. Nothing is imported before Ctrl-C is looked after."""

import sys

_INTERRUPTED = 130


def main() -> None:
    """Run ``postroom`` with the arguments of this process, and exit with its code (see ``errors``)."""
    try:
        from .root import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = _INTERRUPTED
    _leave(code)


def _leave(code: int) -> None:
    """The work is done: a Ctrl-C while the interpreter ends must neither print a traceback nor change the code."""
    import os
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if code == _INTERRUPTED:
        # CPython remembers an interrupt that went through an exec(), though it was caught, and would end by signal.
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
