"""Random graphs of all registered operators, on the device and by their references.

    python -m tests.differential.graphs --count 10000 --seed 1 --jobs 4 --save wrong/

Ends with 1 when a graph is wrong. Each wrong one is made small, and printed as Python that builds it.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import click

from executorch_webgpu.gpu.device import Device, open_device

from .graphs_draw import WrongPlanError, draw, drawn_operators
from .graphs_model import RandomGraph
from .graphs_run import Wrong, wrong_with
from .graphs_shrink import shrunk

CALLS = 8
FUSED = 3  # one graph in so many is fused, too: chains of elementwise operators are kernels that no other graph has


@dataclass(frozen=True)
class Outcome:
    """One graph: its number, its operators, and what is wrong with it, with the smallest graph that shows it."""

    number: int
    operators: tuple[str, ...]
    wrong: str | None = None
    graph: str = ""


@cache
def device() -> Device:
    """The device of this process."""
    return open_device()


def outcome(seed: int, number: int, calls: int = CALLS, operators: Sequence[str] | None = None) -> Outcome:
    """Draw a graph and run it; the same one for the same arguments and operators."""
    try:
        graph = draw((seed, number), calls, operators)
    except WrongPlanError as error:
        return Outcome(number, (), str(error))
    fuse = number % FUSED == 0
    names = tuple(call.op for call in graph.calls)
    try:
        wrong = wrong_with(graph, device(), fuse)
    except Exception as error:  # ours, whatever it is: the other graphs go on
        return Outcome(number, names, f"{type(error).__name__}: {error}", str(graph))
    if wrong is None:
        return Outcome(number, names)

    def find(smaller: RandomGraph) -> Wrong | None:
        found = wrong_with(smaller, device(), fuse)
        return found if found is not None and found.check == wrong.check else None

    small = shrunk(graph, find)
    return Outcome(number, names, str(find(small) or wrong), str(small))


def _outcomes(seed: int, numbers: Sequence[int], calls: int, operators: Sequence[str] | None) -> list[Outcome]:
    return [outcome(seed, number, calls, operators) for number in numbers]


def run(
    seed: int, numbers: Sequence[int], calls: int = CALLS, operators: Sequence[str] | None = None, jobs: int = 1
) -> Iterator[Outcome]:
    """The outcomes of graphs, in any order; ``jobs`` processes share them."""
    if jobs == 1:
        yield from (outcome(seed, number, calls, operators) for number in numbers)
        return
    chunks = [numbers[start : start + 10] for start in range(0, len(numbers), 10)]
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(_outcomes, seed, chunk, calls, operators): chunk for chunk in chunks}
        for future in as_completed(futures):
            try:
                yield from future.result()
            except BrokenProcessPool:
                yield Outcome(futures[future][0], (), f"a process ended while it ran one of {list(futures[future])}")
                return


@click.command(help=__doc__)
@click.option("--count", type=int, default=100, show_default=True, help="How many graphs")
@click.option("--first", type=int, default=0, show_default=True, help="The number of the first one")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--calls", type=int, default=CALLS, show_default=True, help="Calls of a graph")
@click.option("--ops", help="Only operators with one of these words in their names, separated by commas")
@click.option("--jobs", type=int, default=1, show_default=True, help="Processes")
@click.option("--save", type=click.Path(path_type=Path), help="Folder for wrong graphs")
def main(count: int, first: int, seed: int, calls: int, ops: str | None, jobs: int, save: Path | None) -> None:
    names = [name for name in drawn_operators() if ops is None or any(word in name for word in ops.split(","))]
    drawn: Counter[str] = Counter()
    wrong = 0
    for done, found in enumerate(run(seed, range(first, first + count), calls, names, jobs), 1):
        drawn.update(found.operators)
        if found.wrong is not None:
            wrong += 1
            text = f"graph {found.number} of seed {seed}: {found.wrong}\n{found.graph}\n"
            click.echo(text)
            if save is not None:
                save.mkdir(parents=True, exist_ok=True)
                (save / f"graph_{seed}_{found.number}.txt").write_text(text)
        if done % 100 == 0:
            click.echo(f"{done} graphs, {sum(drawn.values())} calls, {wrong} wrong", err=True)
    missed = [name for name in names if not drawn[name]]
    click.echo(f"{count} graphs of {sum(drawn.values())} calls of {len(drawn)} operators: {wrong} wrong")
    if missed:
        click.echo(f"not drawn: {', '.join(missed)}")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
