"""All WGSL compiles on both engines, and what a plan for the smallest device uses fits the smallest device.

The variants are those that planning the samples of all operators asks for, for four kinds of devices and, where there
are KV caches, for all dtypes that these can have; and those that the heads of files name. A file is a whole kernel, a
part of one that lies beside it, or a library of functions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import jinja2
import numpy as np
import pytest
from jinja2 import meta, nodes

from executorch_webgpu.errors import KernelError, UnsupportedProgramError
from executorch_webgpu.gpu.capabilities import Features, Limits
from executorch_webgpu.gpu.compile_check import compile_check
from executorch_webgpu.gpu.head import Head, read_head
from executorch_webgpu.gpu.kernel import DEFAULT_ROOTS, kernel_names, render
from executorch_webgpu.gpu.wgsl import KernelSource, strip_comments
from executorch_webgpu.graph.build import Constant, Graph, build_graph
from executorch_webgpu.graph.execute import plan_graph
from executorch_webgpu.graph.kv_cache import KV_CACHE_DTYPES, has_kv_cache, store_kv_caches
from executorch_webgpu.graph.resize import LivePlans
from executorch_webgpu.ops.plan import Planning, Prepared
from executorch_webgpu.ops.values import Tensor
from tests.ops.samples import SAMPLES, Sample
from tests.test_architecture import imports

(OPS,) = DEFAULT_ROOTS
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
    "lanes": (replace(RICH, subgroup_min_size=4, subgroup_max_size=128, cpu=True, cpu_lanes=8), LARGE),
    "matrix": (replace(RICH, subgroup_matrix=True, subgroup_matrix_shapes=(("f16", "f32", 16, 16, 16),)), LARGE),
}
ENGINES = {device: ("dawn",) if device == "matrix" else ("wgpu", "dawn") for device in DEVICES}


# By their places below ops/: what kernels and libraries say.
TEXTS = {path.relative_to(OPS).as_posix(): path.read_text() for path in sorted(OPS.rglob("*.wgsl"))}
PARSED = {file: jinja2.Environment().parse(text) for file, text in TEXTS.items()}
PARTS = [file for file in TEXTS if (whole := f"{Path(file).parent}/kernel.wgsl") in TEXTS and file != whole]
LIBRARIES = [file for file, text in TEXTS.items() if "@compute" not in text and file not in PARTS]
OF_SEVERAL_CALLS = {"decoder_layers/persistent"}  # tests/graph/test_decoder_layers.py
MOST_LINES = 450
every_file = pytest.mark.parametrize("file", TEXTS)
every_library = pytest.mark.parametrize("file", LIBRARIES)


def name_of(file: str) -> str:
    return file.removesuffix(".wgsl").removesuffix("/kernel")


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
    assert sorted(set(kernel_names()) - OF_SEVERAL_CALLS - reached) == [], (
        "no sample of tests/ops/samples.py dispatches or prepares these"
    )


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
    # Most variants of the two are the same.
    different = {repr(v): v for device in ("floor", "cpu") for v in variants(device)}
    for variant in different.values():
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


# -- files ----------------------------------------------------------------------------------------------------------


def head(file: str) -> Head:
    found = read_head(name_of(file), TEXTS[file])
    assert found.purpose, f"{file} does not begin with a head"
    return found


def samples(file: str) -> Iterator[dict[str, object]]:
    """The first samples of all inputs, and each other one among the first ones of the rest."""
    inputs, first = head(file).inputs, head(file).sample
    yield first
    yield from (first | {each.name: value} for each in inputs for value in each.samples[1:])


def includes(file: str) -> set[str]:
    found = set(meta.find_referenced_templates(PARSED[file]))
    assert None not in found, f"{file} includes what a value names"
    return {name for name in found if name is not None}


def template_names(file: str) -> tuple[set[str], set[str]]:
    """The names that a file and what it includes read: those set nowhere, and all that may come from outside."""
    tree = PARSED[file]
    assigned = {n.name for a in tree.find_all(nodes.Assign) for n in a.find_all(nodes.Name) if n.ctx == "store"}
    assigned |= {macro.name for macro in tree.find_all(nodes.Macro)}
    below = set().union(*(template_names(included)[1] for included in includes(file)))
    read = meta.find_undeclared_variables(tree) - {"dialect"}
    return (read | below) - assigned, read | (below - assigned)


def test_there_are_kernels_and_libraries() -> None:
    assert {name_of(file) for file in set(TEXTS) - set(LIBRARIES) - set(PARTS)} == set(kernel_names())
    assert {"matmul/gemv.wgsl", "wgsl/linear_index.wgsl"} <= set(TEXTS)
    assert "wgsl/linear_index.wgsl" in LIBRARIES


@every_file
def test_files_are_whole_and_plain(file: str) -> None:
    text = TEXTS[file]
    assert text.count("\n") <= MOST_LINES, "what others can use, too, is a library"
    code = strip_comments(text)
    assert "arrayLength" not in code, "buffers are larger than tensors: take the size as a parameter"
    assert not re.search(r"^\s*(enable|requires|diagnostic)\b", code, re.MULTILINE), "the renderer writes directives"


@every_file
def test_heads_name_exactly_the_template_inputs(file: str) -> None:
    never_set, possible = template_names(file)
    if file not in PARTS:  # which see what the kernel has
        assert never_set <= {each.name for each in head(file).inputs} <= possible
    assert head(file).summary.endswith("."), "the list of kernels shows the first sentence"


@every_file
def test_comments_hold_no_tags(file: str) -> None:
    text = TEXTS[file]
    tag = "\0"
    plain = re.sub(r"\{#.*?#\}", "", text, flags=re.DOTALL)
    comments = re.findall(r"//.*", re.sub(r"\{\{.*?\}\}|\{%.*?%\}", tag, plain))
    assert [c for c in comments if tag in c] == []
    begins = re.match(r"\s*\{#(.*?)#\}", text, re.DOTALL)
    assert begins and not re.search(r"\{\{|\{%", begins[1])


@pytest.mark.parametrize("name", kernel_names())
def test_samples_of_heads_compile(name: str) -> None:
    file = f"{name}.wgsl" if f"{name}.wgsl" in TEXTS else f"{name}/kernel.wgsl"
    for template in samples(file):
        matrix = "subgroup_matrix" in render(name, template, "dawn", Features.every()).code
        for engine in ("dawn",) if matrix else ("wgpu", "dawn"):
            compile_check(engine, name, template)


@every_library
def test_libraries_compile_alone(file: str, tmp_path: Path) -> None:
    """A kernel that includes one and does nothing."""
    its_head = TEXTS[file].partition("#}")[0] + "#}\n"
    kernel = f'{its_head}{{% include "{file}" %}}\n@compute @workgroup_size(1)\nfn main() {{}}\n'
    (tmp_path / "alone.wgsl").write_text(kernel)
    assert re.search(r"^fn ", TEXTS[file], re.MULTILINE), "a library has functions"
    # naga does not take two float16 numbers out of a word. Kernels of subgroup matrices do, which only Dawn has.
    users = [text for other, text in TEXTS.items() if file in includes(other)]
    packs_f16 = "bitcast<vec2<f16>>" in TEXTS[file] and all("subgroup_matrix" in text for text in users)
    for template in samples(file):
        for engine in ("dawn",) if packs_f16 else ("wgpu", "dawn"):
            compile_check(engine, "alone", template, roots=(tmp_path, OPS))


@every_library
def test_libraries_have_several_users(file: str) -> None:
    users = [other for other in TEXTS if file in includes(other)]
    assert len(users) > 1, f"what only {users} includes belongs there"


@pytest.mark.parametrize("file", PARTS)
def test_parts_belong_to_the_kernel_beside_them(file: str) -> None:
    assert [other for other in TEXTS if file in includes(other)] == [f"{Path(file).parent}/kernel.wgsl"]


@every_file
def test_includes_go_the_way_of_imports(file: str) -> None:
    """A file may include from its own family, from those that its family imports, and from the library of all."""
    family = file.split("/")[0]
    below = {
        name.removeprefix("executorch_webgpu.ops.").split(".")[0]
        for path in (OPS / family).rglob("*.py")
        for name in imports(path)
        if name.startswith("executorch_webgpu.ops.")
    }
    assert {included.split("/")[0] for included in includes(file)} <= below | {family, "wgsl"}


@pytest.mark.parametrize("name", kernel_names())
def test_plan_functions_name_kernels_literally(name: str) -> None:
    """So that `et-webgpu kernel` finds what dispatches one."""
    assert any(f'"{name}"' in path.read_text() for path in OPS.rglob("*.py"))
