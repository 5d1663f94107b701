"""``et-webgpu kernel``: what there is, and what a compiler gets."""

from __future__ import annotations

import re

import pytest

from executorch_webgpu.gpu.capabilities import Features
from executorch_webgpu.gpu.head import write_variant
from executorch_webgpu.gpu.kernel import head_of, kernel_names, render
from tests.cli.conftest import Cli


def test_lists_every_kernel_with_its_first_sentence(cli: Cli) -> None:
    result = cli("kernel")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    for name in kernel_names():
        assert any(line.split()[:1] == [name] for line in lines), name


@pytest.mark.parametrize("engine", ["wgpu", "dawn"])
@pytest.mark.parametrize("name", kernel_names())
def test_prints_what_the_compiler_gets_and_who_dispatches_it(cli: Cli, name: str, engine: str) -> None:
    head = head_of(name)
    result = cli("kernel", name, "--engine", engine)
    assert result.exit_code == 0, result.stderr
    code = render(name, head.sample, engine, Features.every()).code
    assert result.stdout.endswith(f"// {engine} compiles:\n{code}\n")
    modules = re.findall(r"^// dispatched by (ops/\S+\.py)$", result.stdout, re.MULTILINE)
    assert modules
    for each in head.inputs:
        assert f"//   {write_variant({each.name: each.samples[0]})}: {each.meaning}" in result.stdout


def test_a_variant_replaces_samples(cli: Cli) -> None:
    name = "sampling/partial_argmax"
    noise, _ = head_of(name).inputs
    codes = {cli("kernel", name, "--variant", f"noise={value}").stdout for value in noise.samples}
    assert len(codes) == len(noise.samples) == 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["no/such"], "there is no kernel 'no/such'"),
        (["sampling/partial_argmax", "--variant", "columns=4"], "has no template inputs columns"),
        (["sampling/partial_argmax", "--variant", "rows"], "is not name=value"),
    ],
)
def test_refuses_what_is_not_there(cli: Cli, args: list[str], message: str) -> None:
    result = cli("kernel", *args)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize("engine", ["wgpu", "dawn"])
def test_compiles_where_it_is_asked_to(cli: Cli, engine: str) -> None:
    args = ("kernel", "elementwise/unary", "--engine", engine)
    assert cli(*args, "--compile").exit_code == 0
    broken = (*args, "--variant", "expression='x + undeclared'")
    assert cli(*broken).exit_code == 0
    result = cli(*broken, "--compile")
    assert result.exit_code == 2
    assert "elementwise/unary" in result.stderr and "undeclared" in result.stderr
