"""An operator that is added as docs/architecture.md says, by that text alone, is an operator like all others."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from executorch_webgpu.errors import Error
from executorch_webgpu.gpu.compile_check import compile_check
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.gpu.kernel import DEFAULT_ROOTS, Kernels
from executorch_webgpu.ops import registry
from tests.graph.fusion.graphs import Model, check, names
from tests.graph_builder import Ref
from tests.test_wgsl import DEVICES, ENGINES, planned

from . import samples, test_every_op, test_rows, test_traits
from .harness import call_graph

PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"
UNIT_ROWS, CUBE = "toy.unit_rows.default", "toy.cube.default"
ADDED = (UNIT_ROWS, CUBE)


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, ...]]:
    """The operators of the page are registered, and have samples; the folders of all kernels, theirs included."""
    text = PAGE.read_text()
    section = text[text.index("## Adding an operator") :]
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", section, re.M | re.S)
    assert [language for language, _ in blocks] == ["python", "wgsl", "python"]
    operators, kernel, sampled = (block for _, block in blocks)
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "__init__.py").write_text(operators)
    (folder / "unit_rows.wgsl").write_text(kernel)

    monkeypatch.setattr(registry, "_OPS", dict(registry._OPS))
    name = "executorch_webgpu.ops.toy"
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)

    scope = dict(vars(samples))
    exec(compile(sampled, str(PAGE), "exec"), scope)
    added = list(scope["toy"]())
    samples.SAMPLES.extend(added)
    found = (*DEFAULT_ROOTS, tmp_path)
    monkeypatch.setattr(test_every_op, "ROOTS", found)
    yield found
    del samples.SAMPLES[-len(added) :]


@pytest.fixture
def device(device: Device, roots: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch) -> Device:
    """The device with the kernels of the page."""
    monkeypatch.setattr(device, "kernels", Kernels(device, roots))
    return device


@pytest.mark.parametrize("op", ADDED)
def test_it_passes_the_tests_of_all_operators(device: Device, op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    test_every_op.test_device_agrees_with_the_reference(device, op, monkeypatch)
    test_every_op.test_dtypes_that_a_kernel_does_not_take_are_refused(op)
    test_traits.test_every_operator_says_how_its_sizes_follow(op)
    test_traits.test_sizes_follow_as_the_plan_says(op)
    test_rows.check(op)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_it_refuses_garbage(roots: tuple[Path, ...], data: st.DataObject) -> None:
    call = data.draw(test_every_op.damaged_calls(ADDED))
    with suppress(Error):
        test_every_op.plan_at_two_sizes(call_graph(*call))


@pytest.mark.slow
def test_its_kernels_compile_on_both_engines(roots: tuple[Path, ...]) -> None:
    for sample in (s for s in samples.SAMPLES if s.op in ADDED):
        for kind, (features, limits) in DEVICES.items():
            for kernel, template, overrides in planned(sample, features, limits):
                for engine in ENGINES[kind]:
                    compile_check(engine, kernel, template, overrides, roots)


def unit_rows(build: Model, x: Ref, out: Ref | None = None) -> Ref:
    return build.call(UNIT_ROWS, x, 1e-5, out or build.rows())


def test_rows_are_selected_before_it(device: Device) -> None:
    """Since it states that rows are independent, whatever their dims."""
    build = Model()
    scaled = unit_rows(build, build.sigmoid(build.x))
    build.output(build.call("aten.select_copy.int", scaled, 1, -1, build.tensor((1, 16))))
    graph = check(device, build, ["last_row"], build.steps(7, 1, 4))
    assert [call.name for call in graph.calls][-2:] == ["aten.select_copy.int", UNIT_ROWS]


def test_views_move_past_it(device: Device) -> None:
    build = Model()
    flat = build.tensor((7, 16))
    scaled = unit_rows(build, build.view(build.linear(build.x), build.length, 16), flat)
    build.output(build.call("aten.neg.default", build.view(scaled, 1, build.length, 16), build.rows()))
    graph = check(device, build, ["views"], build.steps(7, 1, 4))
    assert names(graph)["aten.view_copy.default"] == 0


def test_what_is_elementwise_becomes_part_of_a_chain(device: Device) -> None:
    build = Model()
    cubed = build.call(CUBE, unit_rows(build, build.x), build.rows())
    build.output(build.call("aten.mul.Tensor", cubed, build.x, build.rows()))
    graph = check(device, build, ["elementwise"], build.steps(7, 1, 4))
    # The sizes of rows, which are those of the input, say that both factors are alike.
    assert names(graph) == {"sym_size.int": 1, UNIT_ROWS: 1, "et_webgpu.elementwise_chain.default": 1}


def test_it_is_gone_afterwards() -> None:
    assert not [name for name in registry.names() if name in ADDED]
    assert not [sample for sample in samples.SAMPLES if sample.op in ADDED]
