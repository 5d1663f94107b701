"""``et-webgpu inspect SOURCE``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import FILE, device_options, load_options
from .source import chosen_options, conversion_options, program_path
from .streams import note

if TYPE_CHECKING:
    from rich.console import Console

    from ..runtime import LoadOptions, Method
    from ..runtime.metadata import MethodReport


@click.command("inspect")
@click.argument("source")
@click.option("--tokenizer", "tokenizer_file", type=FILE, help="A .gguf or tokenizer.json  [default: the source's own]")
@conversion_options
@click.option("--kernels", is_flag=True, help="List the kernels that a device runs for it; see the kernel command.")
@click.option(
    "--html",
    "html_file",
    type=FILE,
    help="Draw the program's graphs into one HTML file, which loads nothing else. With --kernels as this adapter runs "
    "them, by default for the least that WebGPU promises",
)
@load_options("fuse", "kv_cache_dtype", "matmul_precision", "routes")
@device_options
def command(
    source: str,
    tokenizer_file: Path | None,
    weights: str | None,
    max_context_len: int | None,
    kernels: bool,
    html_file: Path | None,
    engine: str | None,
    adapter: int | str | None,
    loading: LoadOptions,
) -> None:
    """Show what a program holds, and whether it can run here. Needs no GPU, but for --kernels.

    SOURCE is a program (.pte), or a model as the generate command takes it.
    """
    from ..runtime import Runtime, inspect_program
    from ..text.tokenizer import Tokenizer
    from .tables import binary_size, console

    tokenizer = Tokenizer.from_file(tokenizer_file) if tokenizer_file is not None else None
    path, out = program_path(source, chosen_options(weights, max_context_len), tokenizer), console()
    if html_file is not None:
        from ..report.graph_page import write_graph_page

        with Runtime.get(engine, adapter).load_program(path) as program:
            write_graph_page(program, source, html_file, loading, on_device=kernels)
        note(f"wrote {html_file}")
    if kernels:
        with Runtime.get(engine, adapter).load_program(path) as program:
            for name in sorted(program.method_names):
                with program.load_method(name, loading) as loaded:
                    _print_kernels(out, loaded)
        return
    report = inspect_program(path, loading.fuse)
    inside = f", with {', '.join(report.files)}" if report.files else ""
    out.print(f"{source}: {binary_size(report.file_bytes)}, {len(report.methods)} methods{inside}")
    for method in report.methods:
        _print_method(out, method)


def _print_kernels(out: Console, method: Method) -> None:
    from .tables import table

    made = table(("Kernel", "Variant", "Dispatches>", "For"), title=method.metadata.name)
    for use in method.kernels():
        made.add_row(use.kernel, use.variant, str(use.dispatches), ", ".join(use.operators) or "other steps")
    if made.rows:
        out.print(made)


def _print_method(out: Console, method: MethodReport) -> None:
    from .tables import binary_size

    out.print(f"\n{method.name}", style="bold")
    for label, tensors in (("inputs", method.inputs), ("outputs", method.outputs)):
        described = ", ".join(map(str, tensors)) or "none"
        out.print(f"  {label:<10}{described}")
    if method.constant_count:
        out.print(f"  constants {binary_size(method.constants_bytes)} in {method.constant_count}")
    if method.mutable_bytes:
        out.print(f"  state     {binary_size(method.mutable_bytes)} kept between calls")
    if method.backends:
        out.print(f"  backend   {', '.join(method.backends)}: not here, so this method cannot run", style="red")
    if method.planned_bytes is None and not (method.backends and method.problem is None):
        out.print(f"  memory    not planned: {method.problem or 'operators are unsupported'}")
    elif method.planned_bytes:
        out.print(
            f"  memory    {binary_size(method.planned_bytes)} planned for intermediate tensors, of which "
            f"{binary_size(method.peak_bytes or 0)} are alive at once; {binary_size(method.unshared_bytes or 0)} if "
            "they did not share"
        )
    for fusion in method.fusions:
        out.print(f"  fusion    {fusion}")
    if method.operators:
        _print_operators(out, method)


def _print_operators(out: Console, method: MethodReport) -> None:
    from .tables import table

    made = table(("Operator", "Calls>", "Runs on", "Why"))
    for operator in sorted(method.operators, key=lambda each: (each.supported, -each.count, each.name)):
        made.add_row(
            operator.name,
            str(operator.count),
            {"device": "GPU", "host": "host", "nowhere": "unsupported"}[operator.where],
            operator.why,
            style=None if operator.supported else "red",
        )
    out.print(made)
    missing = [operator for operator in method.operators if not operator.supported]
    if missing:
        calls = sum(operator.count for operator in missing)
        out.print(f"  {len(missing)} unsupported operators in {calls} calls: this method cannot run here")
