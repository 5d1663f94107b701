"""Curves from the history of bench_attention: python -m bench.plot_attention [CSV] [--out PNG] [--heads 32/8]

Decode above, prefill below, a column for each head dim; the last measurement of every kind and size counts. Dashed
grey lines are the ceilings of that adapter.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # a file needs no screen
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

RESULTS = Path(__file__).parent / "results"
PHASES = {"decode": ("context", "GB/s"), "prefill": ("new tokens", "TFLOP/s")}
STYLES = {"f32": ":", "f16": "-", "int8": "-."}

Row = dict[str, str]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path, nargs="?", default=RESULTS / "attention.csv")
    parser.add_argument("--out", type=Path, default=RESULTS / "attention.png")
    parser.add_argument("--heads", default="32/8")
    parser.add_argument("--adapter", help="a part of its name; by default that of the last line")
    options = parser.parse_args(argv)

    rows = latest(options.csv, options.heads, options.adapter)
    if not rows:
        parser.error(f"{options.csv} has no times of {options.heads} heads")
    head_dims = sorted({int(row["head_dim"]) for row in rows})
    figure, axes = plt.subplots(
        2, len(head_dims), figsize=(max(9, 4.5 * len(head_dims)), 9), squeeze=False, layout="constrained"
    )
    names = sorted(set(map(name_of, rows)))
    colors = dict(zip(names, plt.get_cmap("tab20").colors, strict=False))  # more names than that do not fit a legend
    for line, phase in zip(axes, PHASES, strict=True):
        for axis, head_dim in zip(line, head_dims, strict=True):
            of_axis = [r for r in rows if r["phase"] == phase and int(r["head_dim"]) == head_dim]
            axis.set_visible(bool(of_axis))
            draw(axis, of_axis, colors)
            axis.set(title=f"{phase}, head dim {head_dim}", xlabel=PHASES[phase][0], ylabel=PHASES[phase][1])
    labelled = {
        label: handle for axis in axes.flat for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(labelled.values(), labelled.keys(), loc="outside lower center", ncols=max(3, len(head_dims)))
    figure.suptitle(f"Attention over a KV cache, {options.heads} heads, {rows[-1]['adapter']}")
    figure.savefig(options.out, dpi=120)
    print(options.out)


def latest(path: Path, heads: str, adapter: str | None) -> list[Row]:
    """The last timed row of each kind and size, of one adapter."""
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["microseconds"] and row["heads"] == heads]
    if adapter is None and rows:
        adapter = rows[-1]["adapter"]
    kinds = ("phase", "head_dim", "context", "dtype", "implementation", "route", "engine")
    return list({tuple(row[k] for k in kinds): row for row in rows if adapter and adapter in row["adapter"]}.values())


def name_of(row: Row) -> str:
    return f"{row['route']} ({row['engine']})" if row["route"] else row["implementation"]


def draw(axis: Axes, rows: Sequence[Row], colors: Mapping[str, tuple[float, ...]]) -> None:
    """Rates over columns or tokens, both logarithmic: a curve for each name and dtype."""
    curves: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    for row in rows:
        curves[name_of(row), row["dtype"]].append((int(row["context"]), float(row["rate"])))
    for (name, dtype), points in sorted(curves.items()):
        x, y = zip(*sorted(points), strict=True)
        axis.plot(x, y, STYLES[dtype], marker="o", markersize=4, color=colors[name], label=f"{name} {dtype}")
    for ceiling, rate in {row["ceiling"]: float(row["ceiling_rate"]) for row in rows}.items():
        axis.axhline(rate, color="grey", linestyle="--", linewidth=1)
        axis.annotate(ceiling, (0.02, rate), xycoords=("axes fraction", "data"), va="bottom", color="grey")
    axis.set(xscale="log", yscale="log")
    ticks = sorted({int(row["context"]) for row in rows})
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.minorticks_off()
    axis.grid(alpha=0.3)


if __name__ == "__main__":
    main()
