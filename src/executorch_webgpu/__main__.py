"""The ``et-webgpu`` command, also ``python -m executorch_webgpu``."""

from __future__ import annotations

import sys


def run() -> None:
    """Run the command; Ctrl-C also ends it quietly while it is still being imported."""
    try:
        from .cli import main

        main(prog_name="et-webgpu")
    except KeyboardInterrupt:
        sys.exit(130)  # the shell's convention: 128 + SIGINT


if __name__ == "__main__":
    run()
