"""Tables of the commands' reports."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from ..llm.measure.lines import Line
    from ..llm.measure.stream_lines import StreamLine
    from ..runtime import ProfileRow

# What a table may use when it is written to a file or a pipe, where nothing says how wide lines are.
PLAIN_WIDTH = 160


def console(*, stderr: bool = False) -> Console:
    """A console as wide as the terminal; without one, wide enough for our tables. Names out of files are shown
    as they are, never taken for markup."""
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, width=None if terminal else PLAIN_WIDTH, markup=False, highlight=False)


def table(columns: Iterable[str], *, title: str | None = None) -> Table:
    """An empty table; a column whose name ends in ">" is aligned to the right."""
    made = Table(box=SIMPLE_HEAD, title=title, title_justify="left", title_style="bold")
    for name in columns:
        made.add_column(name.removesuffix(">"), justify="right" if name.endswith(">") else "left")
    return made


def print_profile(rows: Sequence[ProfileRow]) -> None:
    """Time per kind of op, to stderr, so that it does not mix with a command's output."""
    made = table(("Op", "Route", "Calls>", "Dispatches>", "GPU ms>", "Share>"), title="Time per op")
    for row in rows:
        made.add_row(
            row.op,
            row.route or "",
            str(row.calls),
            str(row.dispatches),
            "" if row.gpu_ms is None else f"{row.gpu_ms:.2f}",
            "" if row.share is None else f"{row.share:.1%}",
        )
    console(stderr=True).print(made)


def print_lines(lines: Sequence[Line]) -> None:
    """Lines of one model as a table, with what they have in common above it."""
    from ..llm.measure.lines import name_of

    out = console()
    _print_common(out, lines)
    several = len({name_of(line) for line in lines}) > 1
    columns = ("Phase", "Context>", "Tokens>", "Tokens/s>", "±>", "MiB a step>", "Roofline>", "Share>")
    of_steps = ("50th>", "99th>", "Worst>", "Host ms>", "GPU ms>", "Dispatches>")
    made = table((*columns, *of_steps, *(("By", "") if several else ())))
    for line in lines:
        spread = "" if line.spread is None else f"{line.spread / 2:.1%}"
        share = "" if line.share is None else f"{line.share:.1%}"
        waits = (line.step_50_ms, line.step_99_ms, line.step_worst_ms, line.host_ms)
        numbers = (line.rate, spread, line.step_mib, line.roofline, share, *waits, line.gpu_ms, line.dispatches)
        by = (name_of(line), line.note) if several else ()
        made.add_row(line.phase, str(line.context), str(line.tokens), *map(_shown, numbers), *by)
    out.print(made)


def print_stream_lines(lines: Sequence[StreamLine]) -> None:
    """Lines of one model with many texts as a table, with what they have in common above it."""
    from ..llm.measure.lines import name_of
    from ..llm.measure.streams import PERCENTILES

    out = console()
    first = _print_common(out, lines)
    percentiles = " / ".join(f"{percentile}th" for percentile in PERCENTILES)
    out.print(
        f"{first.steps} tokens after each prompt, up to {first.rows} rows a step; waits are ms at the {percentiles} "
        "percentile"
    )
    several = len({(name_of(line), line.note) for line in lines}) > 1
    columns = ("Texts>", "Prompt>", "All, tokens/s>", "±>", "One>", "Share>", "With prompts>")
    made = table((*columns, "First token>", "Between tokens>", *(("By", "") if several else ())))
    for line in lines:
        spread = "" if line.spread is None else f"{line.spread / 2:.1%}"
        share = "" if line.share is None else f"{line.share:.1%}"
        waits = (
            " / ".join(_shown(getattr(line, f"{name}_{percentile}_ms")) for percentile in PERCENTILES).strip(" /")
            for name in ("first", "between")
        )
        numbers = (_shown(line.rate), spread, _shown(line.each), share, _shown(line.total))
        by = (name_of(line), line.note) if several else ()
        made.add_row(str(line.streams), str(line.prompt), *numbers, *waits, *by)
    out.print(made)


AnyLine = TypeVar("AnyLine", "Line", "StreamLine")


def _print_common(out: Console, lines: Sequence[AnyLine]) -> AnyLine:
    """What lines have in common, which the first of ours says."""
    from ..llm.measure.lines import OURS

    first = next(line for line in lines if line.implementation == OURS)
    note = f", {first.note}" if first.note else ""
    out.print(f"{first.model} on {first.adapter} ({first.engine}), KV cache {first.kv_cache}{note}", style="bold")
    out.print(
        f"loaded in {first.load_s} s; memory grew by {first.resident_mib} MiB on the host and by {first.device_mib} "
        f"MiB on the device, for a file of {first.file_mib} MiB; the device reads {first.read_gbs} GB/s"
    )
    return first


def _shown(value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def binary_size(size: int) -> str:
    """Bytes in the largest unit that keeps the number at 1 or above: 134217728 is "128 MiB"."""
    value, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.4g} {unit}" if value < 1024 else f"{value:.0f} {unit}"
