"""The load option ``matmul_precision``: routes, what load prepares for them, states, and who passes it on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from bench.models import SHAPES, write_llama
from executorch_webgpu import InvalidInputError, LoadOptions, Program, Runtime
from executorch_webgpu.cli import main
from executorch_webgpu.errors import KernelError
from executorch_webgpu.gpu.capabilities import Features
from executorch_webgpu.graph.build import build_graph
from executorch_webgpu.graph.execute import plan_graph
from executorch_webgpu.graph.kv_cache import store_kv_caches
from executorch_webgpu.graph.resize import LivePlans
from executorch_webgpu.models.llama import LlamaOptions
from executorch_webgpu.ops.plan import MATMUL_PRECISIONS, Planning
from executorch_webgpu.ops.values import Tensor
from tests.test_wgsl import LARGE
from tests.text.tiny_vocabulary import write_bpe

from ..harness import In, Mutable, Out, Sym, call_graph
from ..matrix_emulation import TENSOR_CORES
from ..samples import FLOATS, WEIGHT_FORMATS, fused_linear_sample

NO_TENSOR_CORES = replace(TENSOR_CORES, subgroup_matrix=False, subgroup_matrix_shapes=())
every_precision = pytest.mark.parametrize("precision", MATMUL_PRECISIONS)


def plan(
    rows: int, *, weight_format: str = "q4gsw", width: int = 21, features: Features = TENSOR_CORES, **options: Any
) -> LivePlans:
    """One linear layer of up to ``rows`` rows, planned as load does; ``options`` go to ``Planning``."""
    sample = fused_linear_sample(weight_format, 64, [width], rows=(rows, 1))
    return plan_graph(build_graph(sample.graph()), Planning(features, LARGE, **options))


def route(rows: int, **options: Any) -> str | None:
    return plan(rows, **options).plans[0].route


# -- routes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight_format", WEIGHT_FORMATS)
@pytest.mark.parametrize("rows", [9, 300])
def test_many_rows_of_constant_weights(weight_format: str, rows: int) -> None:
    expected = "few" if rows == 9 and weight_format not in FLOATS else "matrix"
    assert route(rows, weight_format=weight_format) == expected
    assert route(rows, weight_format=weight_format, matmul_precision="highest") == expected
    assert route(rows, weight_format=weight_format, matmul_precision="high") == f"{expected}_f16"


@pytest.mark.parametrize(
    ("rows", "width", "features", "column_quads"),
    [
        (2048, 2048, NO_TENSOR_CORES, 4),  # 128 tiles in the place of 256
        (2048, 3072, NO_TENSOR_CORES, 2),  # two rounds of 192 would be as much as four of 384, which take three
        (2048, 6144, NO_TENSOR_CORES, 4),
        (300, 2048, NO_TENSOR_CORES, 1),
        (2048, 2048, replace(NO_TENSOR_CORES, subgroup_min_size=16), 2),
    ],
)
def test_wide_tiles_where_registers_hold_them(rows: int, width: int, features: Features, column_quads: int) -> None:
    (dispatch,) = plan(rows, width=width, features=features).plans[0].dispatches
    assert dispatch.template["column_quads"] == column_quads


def plan_attention(rows: int, dtype: str = "float16", features: Features = TENSOR_CORES, **options: Any) -> LivePlans:
    """Attention of up to ``rows`` new tokens over caches of ``dtype``."""
    query, key, cache = (1, rows, 4, 32), (1, rows, 2, 32), np.zeros((1, 640, 2, 32), np.float32)
    args = [In(query), In(key), In(key), Mutable(cache), Mutable(cache.copy()), Sym(), 1, None, 0.0, True, None]
    graph = build_graph(call_graph("sdpa_with_kv_cache.default", args, Out(query)))
    stored = graph if dtype == "float32" else store_kv_caches(graph, dtype)
    return plan_graph(stored, Planning(features, LARGE, **options))


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_many_tokens_of_attention(dtype: str) -> None:
    """The route, and that load prepares no tensor-core kernel that cannot be chosen."""
    for precision, name, exact in (("highest", "flash_matrix", True), ("high", "flash_matrix_f16", False)):
        plans = plan_attention(600, dtype, matmul_precision=precision)
        assert plans.plans[-1].route == name
        kernels = [template for kernel, template, _ in plans.pipelines() if kernel == "attention/flash_matrix"]
        assert kernels and all(template["exact"] == exact for template in kernels)
        assert plan_attention(9, dtype, matmul_precision=precision).plans[-1].route == name


@every_precision
def test_what_it_does_not_change_in_attention(precision: str) -> None:
    for rows in (1, 8):
        assert plan_attention(rows, matmul_precision=precision).plans[-1].route == "flash_decode_subgroups"
    assert plan_attention(300, "float32", matmul_precision=precision).plans[-1].route == "flash"
    assert plan_attention(300, features=NO_TENSOR_CORES, matmul_precision=precision).plans[-1].route == "flash"
    for forced in ("flash", "flash_matrix", "flash_matrix_f16"):
        plans = plan_attention(300, routes={"sdpa_with_kv_cache": forced}, matmul_precision=precision)
        assert plans.plans[-1].route == forced


@every_precision
def test_what_it_does_not_change(precision: str) -> None:
    for rows in (1, 8):
        assert route(rows, matmul_precision=precision) == "gemv"
    assert route(300, weight_format="f32", width=13, matmul_precision=precision) == "gemm"
    assert route(300, features=NO_TENSOR_CORES, matmul_precision=precision) == "gemm"
    assert route(300, features=replace(Features.none(), cpu=True), matmul_precision=precision) == "columns"


@every_precision
@pytest.mark.parametrize("forced", ["columns", "gemv", "gemm", "matrix", "matrix_f16"])
def test_a_forced_route_wins(forced: str, precision: str) -> None:
    for rows in (1, 300):
        assert route(rows, routes={"fused_linear": forced}, matmul_precision=precision) == forced


def test_a_forced_route_that_cannot_run_is_refused_all_the_same() -> None:
    with pytest.raises(KernelError, match="route 'matrix_f16' of fused_linear cannot run"):
        route(300, features=NO_TENSOR_CORES, routes={"fused_linear": "matrix_f16"}, matmul_precision="high")


@every_precision
def test_load_prepares_the_pipelines_of_every_number_of_rows(precision: str) -> None:
    """Those of the large tile and of the small one, and of decode."""
    plans = plan(600, width=4096, matmul_precision=precision)
    prepared = {repr(pipeline) for pipeline in plans.pipelines()}
    (x,) = plans.graph.inputs
    assert isinstance(x, Tensor)
    used = []
    for rows in (600, 9, 8, 1):
        plans.set_dims(x, (1, rows, 64))
        plans.update()
        used.append({repr((d.kernel, d.template, d.overrides)) for d in plans.plans[0].dispatches})
        assert used[-1] <= prepared, rows
    assert all(used[i] != used[i + 1] for i in range(3))


# -- programs ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama") / "model.pte"
    write_llama(path, SHAPES["tiny"], LlamaOptions(max_seq_len=13, max_context_len=48))
    return path


def test_an_unknown_precision(llama: Path) -> None:
    with (
        Runtime.get().load_program(llama) as program,
        pytest.raises(InvalidInputError, match="^there is no matmul precision 'medium'; choose highest, high$"),
    ):
        program.load_method("forward", matmul_precision="medium")


def test_a_state_of_another_precision_goes_on(llama: Path, tmp_path: Path) -> None:
    with Runtime.get().load_program(llama) as program:
        one, other = (program.load_method("forward", matmul_precision=precision) for precision in MATMUL_PRECISIONS)
        one.execute([np.array([[3, 1, 4]]), np.array([0])])
        one.state.save(tmp_path / "state")
        with other.load_state(tmp_path / "state") as state:
            assert state.length == 3
            (got,) = other.execute([np.array([[1]]), np.array([3])], state)
        (expected,) = one.execute([np.array([[1]]), np.array([3])])
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-3 * np.abs(expected).max())


# -- commands ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The precisions that ``forward`` was loaded with."""
    found: list[str] = []
    load_method = Program.load_method

    def noted(program: Program, name: str, options: LoadOptions | None = None, **changes: Any) -> Any:
        if name == "forward":
            found.append(LoadOptions.of(options, changes).matmul_precision)
        return load_method(program, name, options, **changes)

    monkeypatch.setattr(Program, "load_method", noted)
    return found


@pytest.mark.parametrize("command", [("generate", "--prompt", "hello"), ("chat",)])
def test_generate_and_chat_pass_it_on(llama: Path, tmp_path: Path, asked: list[str], command: tuple[str, ...]) -> None:
    name, *prompt = command
    more = ["--tokenizer", str(write_bpe(tmp_path / "vocabulary.gguf")), "--max-new-tokens", "1"]
    for precision in ([], ["--matmul-precision", "high"]):
        result = CliRunner().invoke(main, [name, str(llama), *prompt, *more, *precision], input="hi\n")
        assert result.exit_code == 0, result.output
    assert asked == ["highest", "high"]
