"""``python -m tests.differential.programs --count N --seed S``: generated models in torch, the stock runtime and ours.

Each model is exported without a partitioner or with the VulkanPartitioner, and run for several calls. Prints how many
are right, refused and wrong, refusals by message, and where the stock runtime differs from torch. Wrong ones are made
smaller and saved for replay.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from .programs_compare import normalized
from .programs_export import Flavour
from .programs_model import Model, call_inputs, source
from .programs_oracle import Verdict, as_arrays, write_data
from .programs_saved import Step, save_steps
from .programs_shrink import shrink
from .programs_strategy import Example, seeded_example
from .programs_worker import Worker


class Report:
    """Counts of a run, and where to save programs."""

    def __init__(self, save: Path | None, pack: Path | None) -> None:
        self.save = save
        self.pack = pack
        self.kinds: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.stock: Counter[str] = Counter()
        self.unexported: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self.failures = 0
        self.models = 0
        self.began = time.perf_counter()

    def count(self, verdict: Verdict) -> None:
        self.kinds[verdict.kind] += 1
        if verdict.kind == "refused":
            self.refusals[normalized(verdict.detail)] += 1
        elif verdict.kind == "not exported":
            self.unexported[normalized(verdict.detail)] += 1
        if verdict.stock:
            self.stock[normalized(verdict.stock)] += 1

    def show(self) -> None:
        seconds = time.perf_counter() - self.began
        print(f"\n{self.models - self.kinds['not exported']} programs of {self.models} models in {seconds:.0f} s")
        for kind, count in self.kinds.most_common():
            print(f"{count:6} {kind}")
        for title, table in (
            ("Refused", self.refusals),
            ("The stock runtime differs from torch, among programs without delegates and those not right", self.stock),
            ("Not exported", self.unexported),
        ):
            print(f"\n{title}:")
            for message, count in table.most_common():
                print(f"{count:6} {message}")
        sys.stdout.flush()


def described(example: Example) -> str:
    """An example as source."""
    return f"{source(example.model)}# {example.flavour}\n"


def save_verdict(folder: Path, name: str, example: Example, verdict: Verdict) -> Path:
    """Write a program for replay; returns the path of its ``.pte`` file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.pte"
    assert verdict.exported is not None and verdict.expected is not None
    path.write_bytes(verdict.exported.program)
    write_data(verdict.exported, folder, f"{name}_")
    model = example.model
    steps = [
        Step(model.methods[call.method].name, as_arrays([call_inputs(model, call)])[0], outputs)
        for call, outputs in zip(model.calls, verdict.expected, strict=True)
    ]
    outcome = "right" if verdict.kind == "follows stock" else verdict.kind
    save_steps(path, steps, verdict.rules, outcome, verdict.detail, described(example))
    return path


def examine_all(worker: Worker, report: Report, examples: Iterable[tuple[str, Example]]) -> None:
    """Examine examples by name."""
    for name, example in examples:
        report.models += 1
        verdict, death = worker.examine(example.model, example.flavour)
        if death is not None:
            _report_death(report, death, name, example)
            continue
        report.count(verdict)
        if verdict.kind in ("wrong", "follows stock"):
            _save_smaller(worker, report, name, example, verdict)
        elif report.pack and verdict.exported is not None:
            save_verdict(report.pack, name, example, verdict)
        if report.models % 100 == 0:
            print(f"... {report.models}: {dict(report.kinds)}", flush=True)
        if report.models % 500 == 0:
            report.show()


def _report_death(report: Report, death: str, name: str, example: Example) -> None:
    report.kinds[death] += 1
    report.failures += "stock" not in death or "wrong" in death
    text = f"{death}\n{described(example)}"
    print(f"\n=== {name}: {text}", flush=True)
    if report.save:
        report.save.mkdir(parents=True, exist_ok=True)
        (report.save / f"{name}.txt").write_text(text)


def _save_smaller(worker: Worker, report: Report, name: str, example: Example, verdict: Verdict) -> None:
    last = [verdict]

    def fails(model: Model, flavour: Flavour) -> bool:
        found, _ = worker.examine(model, flavour)
        if found is not None and found.kind == verdict.kind:
            last[0] = found
            return True
        return False

    report.failures += verdict.kind == "wrong"
    report.seen[normalized(verdict.detail)] += 1
    if report.seen[normalized(verdict.detail)] <= 2:
        example = Example(*shrink(example.model, example.flavour, fails))
    print(f"\n=== {name}: {verdict.kind}: {last[0].detail}\n{described(example)}", flush=True)
    if report.save:
        save_verdict(report.save, name, example, last[0])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="how many models")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="number of the first model of that seed")
    parser.add_argument("--engine", choices=("wgpu", "dawn"))
    parser.add_argument("--save", type=Path, help="where wrong programs go")
    parser.add_argument("--pack", type=Path, help="where all other programs go, for replay elsewhere")
    options = parser.parse_args()
    logging.disable(logging.ERROR)  # torch tells of every line that it refuses, which is then not drawn
    report = Report(options.save, options.pack)
    numbers = range(options.start, options.start + options.count)
    try:
        with Worker(options.engine) as worker:
            examine_all(worker, report, ((f"s{options.seed}_{n}", seeded_example(options.seed, n)) for n in numbers))
    finally:
        report.show()
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
