"""``et-webgpu kernel [NAME]``."""

from __future__ import annotations

import click

from ..errors import InvalidInputError


@click.command("kernel")
@click.argument("name", required=False)
@click.option(
    "--variant",
    metavar="'NAME=VALUE …'",
    default="",
    help="Template inputs, where they are not to be the first samples of the kernel's head.",
)
@click.option("--engine", type=click.Choice(["wgpu", "dawn"]), default="wgpu", show_default=True)
@click.option("--compile", "compiles", is_flag=True, help="Compile it, too, so that the engine's errors show.")
def command(name: str | None, variant: str, engine: str, compiles: bool) -> None:
    """List the kernels, or print one as the engine's compiler gets it. Needs no GPU.

    `et-webgpu inspect --kernels SOURCE` lists those of a program, with their variants.
    """
    if name is None:
        _print_all()
    else:
        _print_one(name, variant, engine, compiles)


def _print_all() -> None:
    from ..gpu.kernel import head_of, kernel_names
    from .tables import console, table

    made = table(("Kernel", "Template inputs", "Computes"))
    for name in kernel_names():
        head = head_of(name)
        made.add_row(name, " ".join(each.name for each in head.inputs), head.summary)
    console().print(made)


def _print_one(name: str, variant: str, engine: str, compiles: bool) -> None:
    from ..gpu.capabilities import Features
    from ..gpu.compile_check import compile_check
    from ..gpu.head import read_variant, write_variant
    from ..gpu.kernel import head_of, render

    head = head_of(name)
    try:
        template = head.sample | read_variant(variant)
    except ValueError as error:
        raise InvalidInputError(f"--variant: {error}") from error
    source = render(name, template, engine, Features.every())
    click.echo(f"// {name}: {head.purpose}")
    for each in head.inputs:
        click.echo(f"//   {write_variant({each.name: template[each.name]})}: {each.meaning}")
    for module in _dispatching(name):
        click.echo(f"// dispatched by {module}")
    click.echo(f"// {engine} compiles:\n{source.code}")
    if compiles:
        compile_check(engine, name, template)


def _dispatching(kernel: str) -> list[str]:
    """The modules with plan functions that name a kernel."""
    from ..gpu.kernel import DEFAULT_ROOTS

    paths = [path for root in DEFAULT_ROOTS for path in sorted(root.rglob("*.py")) if f'"{kernel}"' in path.read_text()]
    return [path.relative_to(DEFAULT_ROOTS[0].parent).as_posix() for path in paths]
