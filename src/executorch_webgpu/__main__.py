"""The ``et-webgpu`` command, also ``python -m executorch_webgpu``."""

import os
import sys

BAD_INPUT = 2
INTERRUPTED = 130  # the shell's convention: 128 + SIGINT


def run() -> None:
    """Run the command; Ctrl-C ends it quietly at any time, also while it is still being imported."""
    try:
        from .cli import main

        main(prog_name="et-webgpu")
    except KeyboardInterrupt:
        _leave()
    except SystemExit as ended:
        if ended.code == INTERRUPTED:
            _leave()
        raise


def _leave() -> None:
    """End at once: a second Ctrl-C would be a traceback out of Python's own end.

    Python also remembers an interrupt that it saw in generated code, such as a dataclass's, as one that nobody handled,
    and then ends by the signal, whatever the exit code is.
    """
    from contextlib import suppress

    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # no stream, or nobody who reads it any more
            stream.flush()
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    run()
