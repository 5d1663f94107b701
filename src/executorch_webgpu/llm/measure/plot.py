"""The curves of ``et-webgpu bench --plot``."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...errors import InvalidInputError
from .lines import Line, name_of
from .stream_lines import StreamLine
from .streams import PERCENTILES

# By phase: the field of a line that goes across, and its name.
AXES = {"decode": ("context", "tokens in the KV cache"), "prefill": ("tokens", "tokens of the prompt")}
LOGARITHMIC = 10  # rates further apart than this


def require_matplotlib() -> None:
    """Raises InvalidInputError when it is not installed."""
    if find_spec("matplotlib") is None:
        raise InvalidInputError("--plot needs matplotlib: pip install 'executorch-webgpu[bench]'")


def draw(path: Path, lines: Sequence[Line]) -> None:
    """Tokens a second of one model on one adapter: decode over contexts, with its roofline, and prefill over prompts.

    The name of ``path`` says the format. Raises InvalidInputError for one that matplotlib does not write.
    """
    figure, axes = _two_axes()
    colors = {name: f"C{i}" for i, name in enumerate(dict.fromkeys(map(name_of, lines)))}
    for axis, phase in zip(axes, AXES, strict=True):
        rates = []
        for name, color in colors.items():
            of_this = [line for line in lines if (line.phase, name_of(line)) == (phase, name)]
            for field, style, label in (("rate", "o-", name), ("roofline", "--", f"{name}: roofline")):
                points = sorted((getattr(line, AXES[phase][0]), getattr(line, field)) for line in of_this)
                points = [(x, y) for x, y in points if y is not None]
                if points:
                    axis.plot(*zip(*points, strict=True), style, color=color, label=label)
                    rates += [y for _, y in points]
        axis.set(title=phase, xlabel=AXES[phase][1], ylabel="tokens/s")
        axis.grid(alpha=0.3)
        if rates:
            axis.legend()
            if max(rates) > LOGARITHMIC * min(rates):
                axis.set_yscale("log")
            else:
                axis.set_ylim(bottom=0)
    _save(figure, path, lines[0])


def draw_streams(path: Path, lines: Sequence[StreamLine]) -> None:
    """Of one model on one adapter, over numbers of streams: tokens a second of all texts, and how long readers wait.

    The name of ``path`` says the format. Raises InvalidInputError for one that matplotlib does not write.
    """
    figure, (rates, waits) = _two_axes()
    kinds = list(dict.fromkeys(map(_kind, lines)))
    for i, kind in enumerate(kinds):
        of_this = sorted((line for line in lines if _kind(line) == kind), key=lambda line: line.streams)
        for field, style, label in (("rate", "o-", kind), ("roofline", "--", f"{kind}: roofline")):
            _curve(rates, of_this, field, style, f"C{i}", label)
        for name, style in (("first", "o-"), ("between", "s:")):
            for percentile, alpha in zip(PERCENTILES, (1, 0.6, 0.3), strict=True):
                label = f"{kind}: {name} token{'' if name == 'first' else 's'}, {percentile} %"
                _curve(waits, of_this, f"{name}_{percentile}_ms", style, f"C{i}", label, alpha)
    rates.set(title="decode of all texts", ylabel="tokens/s")
    waits.set(title="to the first token, and between tokens", ylabel="ms")
    counts = sorted({line.streams for line in lines})
    for axis in (rates, waits):
        axis.set(xlabel="texts at once", xscale="log", yscale="log")
        axis.set_xticks(counts, list(map(str, counts)))
        axis.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
    _save(figure, path, lines[0])


def _kind(line: StreamLine) -> str:
    """Lines of the same kind make a curve."""
    return f"{name_of(line)}, prompts of {line.prompt}{line.note and f', {line.note}'}"


def _curve(
    axis: Any, lines: Sequence[StreamLine], field: str, style: str, color: str, label: str, alpha: float = 1
) -> None:
    points = [(line.streams, value) for line in lines if (value := getattr(line, field)) is not None]
    if points:
        axis.plot(*zip(*points, strict=True), style, color=color, label=label, alpha=alpha)


def _two_axes() -> tuple[Any, Any]:
    """A figure with two axes side by side."""
    import matplotlib

    matplotlib.use("Agg")  # a file needs no screen
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    return figure, axes


def _save(figure: Any, path: Path, line: Line | StreamLine) -> None:
    """``line`` says of what the figure is."""
    import matplotlib.pyplot as plt

    figure.suptitle(f"{line.model} on {line.adapter}")
    try:
        figure.savefig(path, dpi=120)
    except ValueError as error:
        raise InvalidInputError(f"{path} cannot be drawn: {error}") from error
    finally:
        plt.close(figure)
