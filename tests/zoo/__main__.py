"""``python -m tests.zoo [MODEL ...] [--variants ...] [--full]``: models exported by the stock tools, beside torch.

Prints a line for each program: how it ended, the largest error, how many calls run where, what is not supported,
seconds. Exits with 1 unless all are right. Programs are exported once and kept in the cache folder.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from .chosen import CHOSEN
from .files import VARIANTS, judged, operators

FAMILIES = (
    "vision",
    "plain_vision",
    "detectors",
    "encoders",
    "sentence_encoder",
    "audio",
    "recurrent",
    "diffusion",
    "quantized",
    "language",
    "graphs",
    "decoding",
    "small",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help=f"names of models, or of families: {', '.join(FAMILIES)}")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    parser.add_argument("--full", action="store_true", help="at the size that people use, not thin")
    parser.add_argument("--export", action="store_true", help="only export what `make test` runs")
    parser.add_argument("--engine", choices=("auto", "wgpu", "dawn"))
    parser.add_argument("--adapter", help="index, or part of the name")
    parser.add_argument("--list", action="store_true", help="show the names")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    for family in FAMILIES:
        importlib.import_module(f"tests.zoo.{family}")
    from .export import export_variants
    from .model import MODELS

    if options.export:
        for name, variants in CHOSEN.items():
            export_variants(name, list(variants))
        return 0
    wanted = {*options.models} or {*FAMILIES}
    names = [name for name, model in MODELS.items() if name in wanted or model.family in wanted]
    if options.list:
        print("\n".join(f"{MODELS[name].family:14} {name}" for name in names))
        return 0
    runtime = {k: v for k, v in (("engine", options.engine), ("adapter", options.adapter)) if v is not None}
    kinds: Counter[str] = Counter()
    print(f"{'model':22} {'variant':8} {'outcome':12} {'error':>8}  {'calls':26} {'export':>7} {'load':>6} {'run':>6}")
    for name in names:
        for variant in options.variants:
            if variant not in MODELS[name].variants:
                continue
            kinds[_one(name, variant, options.full, runtime, export_variants)] += 1
    print(", ".join(f"{count} {kind}" for kind, count in kinds.most_common()))
    return 0 if set(kinds) <= {"right"} and kinds else 1


def _one(name: str, variant: str, full: bool, runtime: dict[str, Any], export_variants: Any) -> str:
    """Exports, runs and shows one program; returns how it ended."""
    began = time.perf_counter()
    try:
        path: Path = export_variants(name, [variant], full)[variant]
    except Exception as error:  # the exporter's own errors are of every kind
        print(f"{name:22} {variant:8} {'not exported':12} {_line(error)}", flush=True)
        return "not exported"
    exported_s = time.perf_counter() - began
    try:
        missing, places = operators(path)
        outcome = judged(path, **runtime)
    except Exception as error:  # a fault of ours
        traceback.print_exc()
        print(f"{name:22} {variant:8} {'fault':12} {_line(error)}", flush=True)
        return "fault"
    calls = ", ".join(f"{count} {place}" for place, count in places.items())
    times = f"{exported_s:7.1f} {outcome.load_s:6.2f} {outcome.run_s:6.2f}"
    print(f"{name:22} {variant:8} {outcome.kind:12} {outcome.error:8.1e}  {calls:26} {times}")
    if missing:
        print(f"{'':32}missing: {', '.join(missing)}")
    elif outcome.detail:
        print(f"{'':32}{outcome.detail}")
    sys.stdout.flush()
    return outcome.kind


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:160]}"


if __name__ == "__main__":
    sys.exit(main())
