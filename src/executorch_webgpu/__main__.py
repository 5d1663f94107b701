"""The ``et-webgpu`` command, also ``python -m executorch_webgpu``."""

import os
import sys

from .exit_codes import INTERRUPTED


def run() -> None:
    """Run the command; Ctrl-C ends it quietly at any time, also while it is still being imported."""
    sys.unraisablehook = _unraisable
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

    Python also remembers an interrupt that it saw in generated code, such as a dataclass's, as one that was not
    handled, and then ends by the signal, whatever the exit code is.
    """
    from contextlib import suppress

    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # no stream, or no reader any more
            stream.flush()
    os._exit(INTERRUPTED)


def _unraisable(event):  # type: ignore[no-untyped-def]  # what typing it needs takes long to import
    """Raise an interrupt again that came while Python ran a destructor or a callback, where it would be lost."""
    if event.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(event)
        return
    from _thread import interrupt_main
    from threading import Timer

    timer = Timer(0.01, interrupt_main)
    timer.daemon = True
    timer.start()


if __name__ == "__main__":
    run()
