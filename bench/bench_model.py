"""Speed of a whole model: python -m bench.bench_model [--shape NAME] [--torch compiled graph eager] [--csv FILE]

A program with the sizes of ``--shape`` (see bench/models.py) and random 4-bit weights, measured as ``et-webgpu bench``
measures real ones; ``executorch_webgpu.llm.measure.lines`` explains the columns. Where torch has CUDA, the same shape
is measured in it, in float16: compiled and under a CUDA graph, under a CUDA graph only, or eager, each in a process of
its own that may take ``--torch-seconds``.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from bench.models import SHAPES, fitting_options, write_llama
from bench.torch_runs import VARIANTS, torch_available, torch_lines
from executorch_webgpu import Runtime
from executorch_webgpu.cli.bench import run
from executorch_webgpu.cli.tables import print_lines, print_profile
from executorch_webgpu.llm.measure.history import append
from executorch_webgpu.llm.measure.lines import Line, lines_of
from executorch_webgpu.llm.measure.plot import draw, require_matplotlib

STEP = 2048  # tokens that the program takes at once, to fill long contexts


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    if options.plot:
        require_matplotlib()
    lines: list[Line] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{options.shape}.pte"
        begun = time.perf_counter()
        longest = max(options.contexts or [1024], default=0)
        prompt = max(*(options.prompts or [512]), min(longest, STEP))
        needed = max(prompt + 1, longest + (options.steps or 64))
        write_llama(path, SHAPES[options.shape], fitting_options(SHAPES[options.shape], prompt, needed))
        print(f"wrote {options.shape} with random weights in {time.perf_counter() - begun:.1f} s")
        for engine in options.engines:
            runtime = Runtime.get(engine, options.adapter)
            loading = {
                "kv_cache_dtype": options.kv_cache,
                "matmul_precision": options.matmul_precision,
                "routes": dict(route.split("=") for route in options.route) or None,
            }
            report = run(runtime, path, sizes(options), **loading)
            found = lines_of(report, runtime.device, f"{options.shape} (random)", version=commit())
            print_lines(found)
            if options.profile:
                print_profile(report.profile)
            finish(options, found)
            lines += found
    ours = tuple(lines)
    for variant in options.torch:
        found = torch_lines(variant, ours, options.shape, options.torch_seconds)
        finish(options, found)
        lines += found
    if options.torch:
        print_lines(lines)
    if options.plot:
        draw(options.plot, lines)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="smollm2-135m")
    parser.add_argument("--engines", nargs="+", default=[None], help="wgpu, dawn, or both")
    parser.add_argument("--adapter", help="index or a part of the name")
    parser.add_argument("--prompts", type=int, nargs="+")
    parser.add_argument("--contexts", type=int, nargs="*")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--kv-cache", choices=("f32", "f16", "int8"), default="f32")
    parser.add_argument("--matmul-precision", choices=("highest", "high"), default="highest")
    parser.add_argument(
        "--route", nargs="*", default=[], metavar="FAMILY=NAME", help="compute a family by these kernels"
    )
    parser.add_argument("--profile", action="store_true", help="print the time of each kind of operator")
    parser.add_argument("--torch", nargs="*", choices=VARIANTS, help="in torch, too  [default: graph eager, if it can]")
    parser.add_argument("--torch-seconds", type=float, default=300, help="that each of them may take")
    parser.add_argument("--csv", type=Path, help="append the lines to a history")
    parser.add_argument("--plot", type=Path, help="draw the rates")
    options = parser.parse_args(argv)
    can = torch_available()
    if options.torch and not can:
        parser.error("--torch needs torch with CUDA in this environment")
    if options.torch is None:
        options.torch = ["graph", "eager"] if can else []  # to compile takes minutes
    return options


def sizes(options: argparse.Namespace) -> dict[str, object]:
    """What ``measure`` is asked for; None where its default will do."""
    names = ("prompts", "contexts", "steps", "repeats")
    given = {name: getattr(options, name) for name in names}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def finish(options: argparse.Namespace, lines: Sequence[Line]) -> None:
    if options.csv and lines:
        append(options.csv, [asdict(line) for line in lines])


def commit() -> str:
    """The commit that is checked out; without git, or outside a checkout, there is none to name."""
    with suppress(OSError, subprocess.CalledProcessError):
        return subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], text=True).strip()
    return ""


if __name__ == "__main__":
    main()
