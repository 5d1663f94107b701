"""The command line, ``et-webgpu``: one file a command.

Commands import what they need when they run, so that ``--help`` is shown at once.
"""

from __future__ import annotations

from typing import Any, NoReturn

import click

from .. import __version__
from ..errors import Error
from ..exit_codes import BAD_INPUT, INTERRUPTED
from . import bench, chat, check, convert, devices, embed, generate, inspect, kernel, perplexity, profile, run, serve
from .streams import note, replace_what_cannot_be_written


class Commands(click.Group):
    """A group whose commands end in one line on stderr, and no traceback, when the input is at fault."""

    def main(self, *args: Any, **extra: Any) -> Any:
        replace_what_cannot_be_written()
        return super().main(*args, **extra)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        try:
            return super().make_context(*args, **extra)
        except KeyboardInterrupt:  # which click would call "Aborted!"
            raise click.exceptions.Exit(INTERRUPTED) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Error as error:
            _fail(str(error))
        except BrokenPipeError:
            raise  # the reader of our output has left; click ends quietly
        except OSError as error:
            # Only files that the user named are opened here: say which one, and what is wrong with it.
            named = f"{error.filename}: " if error.filename is not None else ""
            _fail(f"{named}{error.strerror or error}")
        except KeyboardInterrupt:
            raise click.exceptions.Exit(INTERRUPTED) from None


def _fail(message: str) -> NoReturn:
    note("error: " + " ".join(message.split()))
    raise click.exceptions.Exit(BAD_INPUT)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="et-webgpu")
def main() -> None:
    """Run ExecuTorch programs (.pte) and language models on WebGPU."""


for module in (devices, inspect, kernel, run, check, generate, chat, embed, convert, serve, perplexity, bench, profile):
    main.add_command(module.command)
