"""Writes docs/operators.md: every operator with its dtypes, its limits, where it runs, and what it is held against.

Everything is found: operators and their text in the registry, dtypes and kernels by planning the samples of the tests,
and what torch has by the same name. Needs torch and the packages of the tests. Run it from the repository's root.
``--conformance`` names an unpacked conformance pack (scripts/make_conformance_pack.py), of which the calls are counted
anew; without it, those of conformance_calls.json are taken.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path

import click

from executorch_webgpu.ops.plan import OpPlan
from executorch_webgpu.ops.registry import Op, find, names
from executorch_webgpu.ops.values import SymInt
from executorch_webgpu.portable.kernels import OTHERS, SCALAR_OPERATORS
from executorch_webgpu.runtime import inspect_program
from tests.ops.dtypes import DTYPES, Taken, taken
from tests.ops.torch_calls import functional_name, torch_overload

ROOT = Path(__file__).parents[1]
HEAD, PAGE = ROOT / "scripts" / "operators_head.md", ROOT / "docs" / "operators.md"
CALLS = ROOT / "scripts" / "conformance_calls.json"
COLUMNS = ("Operator", "What it computes, and limits", "Dtypes", "Runs", "Held against")


def page() -> str:
    """The text of docs/operators.md."""
    calls: dict[str, int] = json.loads(CALLS.read_text())
    parts = [HEAD.read_text().rstrip()]
    for family, operators in sorted(_families().items()):
        package = import_module(f"executorch_webgpu.ops.{family}")
        rows = [_row(group, calls) for group in operators]
        parts += [f"## {family}", _text(inspect.getdoc(package)), "\n".join(_table(rows))]
    parts += ["## On the host only", _HOST_ONLY, "\n".join(f"* `{name}`" for name in host_only())]
    return "\n\n".join(parts) + "\n"


_HOST_ONLY = """\
These have a NumPy kernel and none for the device. A program that calls one runs it between two parts on the GPU, and
what it takes and gives crosses the bus. `et-webgpu inspect` shows where a program does."""


def _families() -> dict[str, list[list[Op]]]:
    """By folder of ``ops/``: its operators, those together that are one function by several names."""
    groups: defaultdict[tuple[str, int], list[Op]] = defaultdict(list)
    for name in names():
        op = find(name)
        assert op is not None
        groups[op.plan.__module__.split(".")[2], id(op.plan)].append(op)
    families: defaultdict[str, list[list[Op]]] = defaultdict(list)
    for (family, _), group in groups.items():
        families[family].append(group)
    return families


def _table(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    for row in (COLUMNS, ("---",) * len(COLUMNS), *rows):
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |"


def _row(group: list[Op], calls: dict[str, int]) -> tuple[str, ...]:
    found = [taken(op.name) for op in group]
    plans = [plan for each in found for plan in each.plans]
    (*parameters, _) = group[0].parameters
    named = "<br>".join(f"`{op.name}`" for op in group)
    return (
        f"{named}<br>({', '.join(parameters)})",
        _meaning(group[0], plans),
        _dtypes(found, group[0]),
        "host" if group[0].kinds[-1] is SymInt else _runs(plans),
        _held_against(group, calls),
    )


def _meaning(op: Op, plans: list[OpPlan]) -> str:
    """The text of the plan function, or the expression of WGSL that a table has for it."""
    if text := inspect.getdoc(op.plan):
        return _text(text)
    expressions = {d.template["expression"]: None for p in plans for d in p.dispatches if "expression" in d.template}
    return "<br>".join(f"`{expression}`" for expression in expressions)


def _dtypes(found: list[Taken], op: Op) -> str:
    """By sets of arguments that take the same ones."""
    by_set: dict[tuple[str, ...], list[str]] = {}
    for name in op.parameters:
        union = {dtype for each in found for dtype in each.dtypes.get(name, ())}
        if union:
            by_set.setdefault(tuple(d for d in DTYPES if d in union), []).append(name)
    if len(by_set) == 1:
        return _listed(*by_set)
    return "<br>".join(f"{', '.join(arguments)}: {_listed(dtypes)}" for dtypes, arguments in by_set.items())


def _listed(dtypes: tuple[str, ...]) -> str:
    return "all" if dtypes == DTYPES else ", ".join(dtypes)


def _runs(plans: list[OpPlan]) -> str:
    """Where an operator with a tensor as its result runs, and the kernels that its samples dispatch there."""
    kernels = sorted({dispatch.kernel for plan in plans for dispatch in plan.dispatches})
    shares = any(plan.alias_of is not None for plan in plans)
    return "<br>".join(["device", *(["shares memory"] if shares else []), *(f"`{kernel}`" for kernel in kernels)])


def _held_against(group: list[Op], calls: dict[str, int]) -> str:
    against = ["reference"]
    if any(torch_overload(op.name) is not None for op in group):
        against.append("torch")
    if count := sum(calls.get(op.name, 0) for op in group):
        against.append(f"catalog ({count})")
    return "<br>".join(against)


def host_only() -> list[str]:
    """Operators that programs call outside of delegates and only NumPy computes, by ExecuTorch's names."""
    registered = set(names())
    scalar = [f"executorch_prim::{stem}" for stem in SCALAR_OPERATORS]
    rest = [
        f"{name}.{overload}".rstrip(".")
        for name, overload in OTHERS
        if functional_name(name, overload) not in registered
    ]
    return sorted([*scalar, *rest])


def _text(text: str | None) -> str:
    """A docstring as one line of Markdown."""
    return " ".join((text or "").replace("``", "`").split())


def count_calls(folder: Path) -> dict[str, int]:
    """Cases of the conformance pack that call each operator."""
    manifest = json.loads((folder / "manifest.json").read_text())
    counted: Counter[str] = Counter()
    for case in manifest:
        report = inspect_program(folder / case["pte"])
        counted.update({o.name for method in report.methods for o in method.operators if "::" not in o.name})
    return dict(sorted(counted.items()))


@click.command(help=__doc__)
@click.option("--conformance", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--check", is_flag=True, help="Write nothing; end with 1 if the page is out of date.")
def main(conformance: Path | None, check: bool) -> None:
    if conformance is not None:
        CALLS.write_text(json.dumps(count_calls(conformance), indent=1) + "\n")
    made = page()
    if check and PAGE.read_text() != made:
        click.echo(f"{PAGE.name} is out of date: run python -m scripts.operators_page", err=True)
        sys.exit(1)
    if not check:
        PAGE.write_text(made)


if __name__ == "__main__":
    main()
