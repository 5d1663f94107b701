"""The curves of ``et-webgpu bench --plot``."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from ...errors import InvalidInputError
from .lines import Line, name_of

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
    import matplotlib

    matplotlib.use("Agg")  # a file needs no screen
    import matplotlib.pyplot as plt

    colors = {name: f"C{i}" for i, name in enumerate(dict.fromkeys(map(name_of, lines)))}
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
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
    first = lines[0]
    figure.suptitle(f"{first.model} on {first.adapter}")
    try:
        figure.savefig(path, dpi=120)
    except ValueError as error:
        raise InvalidInputError(f"{path} cannot be drawn: {error}") from error
    finally:
        plt.close(figure)
