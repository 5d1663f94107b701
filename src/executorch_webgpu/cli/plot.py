"""The curves of ``et-webgpu bench --plot``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from ..errors import InvalidInputError
from .lines import Line, name_of


def require_matplotlib() -> None:
    """Raises InvalidInputError when it is not installed."""
    if find_spec("matplotlib") is None:
        raise InvalidInputError("--plot needs matplotlib: pip install 'executorch-webgpu[bench]'")


def draw(path: Path, lines: Sequence[Line]) -> None:
    """Decode over contexts, with its roofline, and prefill over prompts: tokens a second, a curve an implementation.

    The name of ``path`` says the format. Raises InvalidInputError for one that matplotlib does not write.
    """
    import matplotlib

    matplotlib.use("Agg")  # a file needs no screen
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for axis, (phase, across) in zip(axes, (("decode", "context"), ("prefill", "tokens")), strict=True):
        curves: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
        for line in lines:
            if line.phase == phase and line.rate is not None:
                curves[name_of(line)].append((getattr(line, across), line.rate))
                if line.roofline is not None:
                    curves[f"roofline of {name_of(line)}"].append((line.context, line.roofline))
        for name, points in curves.items():
            x, y = zip(*sorted(points), strict=True)
            axis.plot(x, y, "--" if name.startswith("roofline") else "o-", label=name)
        axis.set(title=phase, xlabel={"context": "tokens in the KV cache", "tokens": "tokens of the prompt"}[across])
        axis.set(ylabel="tokens/s", yscale="log")
        axis.grid(alpha=0.3, which="both")
        if curves:
            axis.legend()
    first = lines[0]
    figure.suptitle(f"{first.model} on {first.adapter} ({first.engine})")
    try:
        figure.savefig(path, dpi=120)
    except ValueError as error:
        raise InvalidInputError(f"{path} cannot be drawn: {error}") from error
    finally:
        plt.close(figure)
