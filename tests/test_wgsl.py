"""All WGSL compiles on both engines, and what a plan for the smallest device uses fits the smallest device.

The variants are those that planning the samples of all operators asks for, for four kinds of devices and, where there
are KV caches, for all dtypes that these can have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from executorch_webgpu.errors import KernelError, UnsupportedProgramError
from executorch_webgpu.gpu.capabilities import Features, Limits
from executorch_webgpu.gpu.compile_check import compile_check
from executorch_webgpu.gpu.kernel import DEFAULT_ROOTS, render
from executorch_webgpu.gpu.wgsl import KernelSource, strip_comments
from executorch_webgpu.graph.build import Constant, Graph, build_graph
from executorch_webgpu.graph.execute import plan_graph
from executorch_webgpu.graph.kv_cache import KV_CACHE_DTYPES, has_kv_cache, store_kv_caches
from executorch_webgpu.graph.resize import LivePlans
from executorch_webgpu.ops.plan import Planning, Prepared
from executorch_webgpu.ops.values import Tensor
from tests.ops.samples import SAMPLES, Sample

(OPS,) = DEFAULT_ROOTS
FILES = sorted(OPS.rglob("*.wgsl"))
INCLUDE = re.compile(r'{%\s*(?:include|from|import|extends)\s+"([^"]+)\.wgsl"')
LARGE = replace(
    Limits.floor(),
    max_workgroup_bytes=48 << 10,
    max_invocations=1024,
    max_workgroup_size=(1024, 1024, 64),
    max_storage_buffers=16,
)
RICH = Features(
    f16=True, subgroups=True, subgroup_min_size=32, subgroup_max_size=32, timestamps=True, subgroup_matrix=False
)
DEVICES = {
    "floor": (Features.none(), Limits.floor()),
    "rich": (RICH, LARGE),
    "cpu": (replace(Features.none(), cpu=True), Limits.floor()),
    "matrix": (replace(RICH, subgroup_matrix=True, subgroup_matrix_shapes=(("f16", "f32", 16, 16, 16),)), LARGE),
}
ENGINES = {device: ("dawn",) if device == "matrix" else ("wgpu", "dawn") for device in DEVICES}


def kernel_name(path: Path) -> str:
    return path.relative_to(OPS).with_suffix("").as_posix()


def included() -> set[str]:
    """Files that are parts of kernels, not kernels: by an include, or by a template value that names one to include."""
    literal = {name for path in FILES for name in INCLUDE.findall(path.read_text())}
    values = (v for device in DEVICES for _, template, _ in variants(device) for v in template.values())
    return literal | {v for v in values if isinstance(v, str)}


def loaded(sample: Sample, features: Features, limits: Limits) -> Iterator[LivePlans]:
    """The sample's plans, one for each dtype of its KV caches, as load makes them."""
    for dtype in KV_CACHE_DTYPES.values():
        graph = build_graph(sample.graph())
        if dtype != "float32":
            if not has_kv_cache(graph):
                return
            graph = store_kv_caches(emptied(graph), dtype)
        try:
            yield plan_graph(graph, Planning(features, limits, **sample.options))
        except (KernelError, UnsupportedProgramError):  # a forced route, or a head size, that takes float32 only
            assert dtype != "float32"


def emptied(graph: Graph) -> Graph:
    """With constants of zeros, as KV caches begin."""
    tensors = {t.id: t for call in graph.calls for t in call.inputs}
    return replace(graph, constants={id: Constant.zeros(tensors[id]) for id in graph.constants})


def planned(sample: Sample, features: Features, limits: Limits) -> Iterator[Prepared]:
    """What a load compiles, and what steps at maximum and at smaller dims dispatch."""
    for plans in loaded(sample, features, limits):
        yield from plans.prepared
        yield from recorded(plans)
        yield from stepped(sample, plans)


def recorded(plans: LivePlans) -> Iterator[Prepared]:
    """What the current plans dispatch."""
    for dispatch in (d for plan in plans.plans for d in plan.dispatches):
        yield dispatch.kernel, dispatch.template, dispatch.overrides


def stepped(sample: Sample, plans: LivePlans) -> Iterator[Prepared]:
    """What steps at maximum and at smaller dims dispatch."""
    for live in (False, True):
        for value, given in zip(plans.graph.inputs, sample.inputs(live), strict=True):
            assert isinstance(value, Tensor)
            array = np.asarray([given], np.int32) if isinstance(given, int) else given
            plans.set_dims(value, array.shape)
            if value.dtype == "int32":
                plans.set_host(value, array)
        plans.update()
        yield from recorded(plans)


@cache
def variants(device: str) -> list[Prepared]:
    """The different pipelines that the samples need on a kind of device, by kernel."""
    found = {repr(v): v for sample in SAMPLES for v in planned(sample, *DEVICES[device])}
    return sorted(found.values(), key=lambda v: v[0])


@cache
def kernels_of(device: str) -> frozenset[str]:
    return frozenset(kernel for kernel, _, _ in variants(device))


@pytest.mark.slow
def test_every_kernel_is_reached() -> None:
    reached = frozenset().union(*(kernels_of(device) for device in DEVICES))
    kernels = {kernel_name(path) for path in FILES} - included()
    assert sorted(kernels - reached) == [], "no sample of tests/ops/samples.py dispatches or prepares these"


@pytest.mark.slow
@pytest.mark.parametrize(("device", "engine"), [(device, engine) for device in DEVICES for engine in ENGINES[device]])
def test_every_variant_compiles(device: str, engine: str) -> None:
    for kernel, template, overrides in variants(device):
        compile_check(engine, kernel, template, overrides)


@pytest.mark.parametrize("device", DEVICES)
def test_no_step_compiles_what_load_did_not(device: str) -> None:
    for sample in SAMPLES:
        for plans in loaded(sample, *DEVICES[device]):
            compiled = [*plans.prepared, *recorded(plans)]
            for variant in stepped(sample, plans):
                assert variant in compiled, sample


def floor_sources() -> Iterator[tuple[KernelSource, Prepared]]:
    for device in ("floor", "cpu"):
        for variant in variants(device):
            for dialect in ("wgpu", "dawn"):
                kernel, template, _ = variant
                yield render(kernel, template, dialect, Features.none()), variant


@pytest.mark.slow
def test_variants_for_the_smallest_device_fit_it() -> None:
    limits = Limits.floor()
    for source, (kernel, template, overrides) in floor_sources():
        x, y, z = source.workgroup(overrides)
        nbytes = source.workgroup_bytes(overrides)
        buffers = sum(b.access != "uniform" for b in source.bindings)
        assert x * y * z <= limits.max_invocations == 256, (kernel, template, overrides)
        assert all(s <= most for s, most in zip((x, y, z), limits.max_workgroup_size, strict=True)), kernel
        assert nbytes is not None, f"{kernel}: the size of a workgroup variable cannot be read from its type"
        assert nbytes <= limits.max_workgroup_bytes == 16 << 10, (kernel, template, overrides)
        assert buffers <= limits.max_storage_buffers == 8, (kernel, template)


@pytest.mark.slow
def test_variants_for_the_smallest_device_use_nothing_optional() -> None:
    for source, (kernel, template, _) in floor_sources():
        code = strip_comments(source.code)
        assert not re.search(r"\bf16\b|\bvec[234]h\b|\bsubgroup|^\s*enable\b", code, re.MULTILINE), (kernel, template)


@pytest.mark.parametrize("path", FILES, ids=kernel_name)
def test_wgsl_files_are_small_and_plain(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 200, "split it by meaning"
    code = strip_comments(text)
    assert "arrayLength" not in code, "buffers are larger than tensors: take the size as a parameter"
    assert not re.search(r"^\s*(enable|requires|diagnostic)\b", code, re.MULTILINE), "the renderer writes directives"
