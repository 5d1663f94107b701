"""The same attention by ONNX Runtime's WebGPU provider: python -m bench.onnx_attention HEADS HEAD_DIM ROWS CONTEXT

One GroupQueryAttention in float16 with its KV cache on the device, by wall clock over many calls, the write of the new
rows included: the provider offers no GPU time. Prints the seconds of a call. A process of its own, since that provider
brings another Dawn along.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib.util import find_spec
from typing import Any

import numpy as np

PROVIDER = "WebGpuExecutionProvider"
SECONDS = 0.5  # of calls that count, after as many that do not
LIMIT = 60  # seconds for the process


def available() -> bool:
    """Whether onnx and an ONNX Runtime with a WebGPU provider are installed."""
    if find_spec("onnxruntime") is None or find_spec("onnx") is None:
        return False
    import onnxruntime

    return PROVIDER in onnxruntime.get_available_providers()


def onnx_seconds(heads: tuple[int, int], head_dim: int, rows: int, context: int) -> tuple[float | None, str]:
    """(seconds of a call, why there are none)."""
    command = [sys.executable, "-m", __name__, f"{heads[0]}/{heads[1]}", *map(str, (head_dim, rows, context))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return None, f"took over {LIMIT} s"
    if done.returncode:
        return None, (done.stderr.strip().splitlines() or ["no message"])[-1]
    return float(json.loads(done.stdout.splitlines()[-1])), ""


def build(heads: tuple[int, int], head_dim: int) -> bytes:
    """A model of one GroupQueryAttention: q, k, v [1, S, heads * D], past keys and values [1, Hkv, P, D]."""
    import onnx
    from onnx import TensorProto, helper

    query, key = (h * head_dim for h in heads)
    half, integer = TensorProto.FLOAT16, TensorProto.INT32
    past = [1, heads[1], "P", head_dim]
    inputs = [
        helper.make_tensor_value_info("query", half, [1, "S", query]),
        helper.make_tensor_value_info("key", half, [1, "S", key]),
        helper.make_tensor_value_info("value", half, [1, "S", key]),
        helper.make_tensor_value_info("past_key", half, past),
        helper.make_tensor_value_info("past_value", half, past),
        helper.make_tensor_value_info("last_position", integer, [1]),
        helper.make_tensor_value_info("total_length", integer, [1]),
    ]
    present = [1, heads[1], "T", head_dim]
    outputs = [
        helper.make_tensor_value_info("out", half, [1, "S", query]),
        helper.make_tensor_value_info("present_key", half, present),
        helper.make_tensor_value_info("present_value", half, present),
    ]
    node = helper.make_node(
        "GroupQueryAttention",
        [i.name for i in inputs],
        [o.name for o in outputs],
        domain="com.microsoft",
        num_heads=heads[0],
        kv_num_heads=heads[1],
    )
    graph = helper.make_graph([node], "attention", inputs, outputs)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return onnx.helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()


def measure(heads: tuple[int, int], head_dim: int, rows: int, context: int) -> float:
    """Seconds of a call of ``rows`` new tokens, the last of which sees ``context`` columns."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(build(heads, head_dim), options, providers=[PROVIDER])
    random = np.random.default_rng(0)

    def halves(*dims: int) -> Any:
        return random.standard_normal(dims, np.float32).astype(np.float16)

    # The cache holds the whole context from the start: past and present are then one buffer, as they are in a model.
    cache = [halves(1, heads[1], context, head_dim) for _ in "kv"]
    given = {
        "query": halves(1, rows, heads[0] * head_dim),
        "key": halves(1, rows, heads[1] * head_dim),
        "value": halves(1, rows, heads[1] * head_dim),
    }
    lengths = {"last_position": np.array([context - 1], np.int32), "total_length": np.array([context], np.int32)}
    binding = session.io_binding()
    for name, array in given.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array, "webgpu", 0))
    for name, array in lengths.items():
        binding.bind_cpu_input(name, array)
    for name, array in zip(("key", "value"), cache, strict=True):
        value = ort.OrtValue.ortvalue_from_numpy(array, "webgpu", 0)
        binding.bind_ortvalue_input(f"past_{name}", value)
        binding.bind_ortvalue_output(f"present_{name}", value)
    binding.bind_output("out", "webgpu", 0)

    def run(calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            session.run_with_iobinding(binding)
        binding.copy_outputs_to_cpu()  # waits for all of them
        return time.perf_counter() - start

    once = run(1)
    calls = 4
    while once * calls < SECONDS:  # doubling is the warm-up, too
        once = run(calls) / calls
        calls *= 2
    none, many = run(1), run(calls + 1)  # the difference holds no copy
    return (many - none) / calls


def main(argv: list[str]) -> None:
    heads, *sizes = argv
    query, _, key = heads.partition("/")
    head_dim, rows, context = map(int, sizes)
    print(json.dumps(measure((int(query), int(key)), head_dim, rows, context)))


if __name__ == "__main__":
    main(sys.argv[1:])
