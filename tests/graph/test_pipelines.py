"""No step compiles: a whole model has its pipelines from load, whatever lengths and positions its steps have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.models import SHAPES, write_llama
from executorch_webgpu import Runtime
from executorch_webgpu.format.pte import open_program
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.gpu.kernel import Kernels
from executorch_webgpu.graph.execute import plan_graph
from executorch_webgpu.graph.fusion import chosen_fusions, fuse_graph
from executorch_webgpu.graph.resize import LivePlans
from executorch_webgpu.models.llama import LlamaOptions
from executorch_webgpu.ops.plan import MATMUL_PRECISIONS, Planning
from executorch_webgpu.ops.values import Tensor
from executorch_webgpu.runtime.method import _with_kv_caches
from executorch_webgpu.runtime.method_file import MethodFile
from tests.test_wgsl import DEVICES, recorded

ROWS, CONTEXT = 36, 600  # tokens of a step, and of the KV cache
SHAPE = replace(SHAPES["tiny"], context_len=CONTEXT)
CACHES = ("f32", "f16", "int8")
Step = tuple[int, int]  # tokens, input_pos


def steps() -> Iterator[Step]:
    """Prefill and decode of every length, at the beginning and at the end of the cache; decode all the way."""
    for length in range(1, ROWS + 1):
        yield length, 0
        yield length, CONTEXT - length
    yield from ((1, position) for position in range(0, CONTEXT, 13))
    yield from ((length, position) for length in (2, 8, 9, ROWS) for position in range(0, CONTEXT - length, 37))


@pytest.fixture(scope="module", params=["q4gsw", "native"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama") / "model.pte"
    write_llama(path, SHAPE, LlamaOptions(request.param, max_seq_len=ROWS + 1, max_context_len=CONTEXT))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("cache", CACHES)
def test_no_step_of_a_model_compiles(
    device: Device, program: Path, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "kernels", Kernels(device))
    runtime = Runtime()
    runtime._device = device
    with runtime.load_program(program) as opened, opened.load_method("forward", kv_cache_dtype=cache) as method:
        compiled = device.kernels.stats()
        for length, position in steps():
            method.execute([np.ones((1, length), np.int64), np.array([position])])
            assert device.kernels.stats() == compiled, (length, position)


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "unfused"])
@pytest.mark.parametrize("precision", MATMUL_PRECISIONS)
@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("device", DEVICES)
def test_no_step_of_a_model_would_compile_on_other_devices(
    program: Path, device: str, cache: str, precision: str, fuse: bool
) -> None:
    mapped, file = open_program(program)
    (plan,) = (plan for plan in file.methods if plan.name == "forward")
    graphs = MethodFile(file, plan).graphs()
    for stored in _with_kv_caches(plan, graphs, cache):
        graph, _ = fuse_graph(stored, chosen_fusions(fuse))
        plans = plan_graph(graph, Planning(*DEVICES[device], matmul_precision=precision))
        rounds = not {"few_f16", "matrix_f16"}.isdisjoint(plan.route for plan in plans.plans)
        assert rounds == (device == "matrix" and precision == "high")
        compiled = {repr(pipeline) for pipeline in plans.pipelines()}
        for length, position in steps():
            step(plans, length, position)
            assert {repr(pipeline) for pipeline in recorded(plans)} <= compiled, (length, position)
    mapped.close()


def step(plans: LivePlans, length: int, position: int) -> None:
    tokens, input_pos = plans.graph.inputs
    for value, array in ((tokens, np.ones((1, length), np.int32)), (input_pos, np.array([position], np.int32))):
        assert isinstance(value, Tensor)
        plans.set_dims(value, array.shape)
        plans.set_host(value, array)
    plans.update()
