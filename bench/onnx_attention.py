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
from statistics import median
from typing import Any

import numpy as np

PROVIDER, DEVICE = "WebGpuExecutionProvider", "webgpu"
_ELEMENTS = {"float32": 1, "float16": 10}  # numbers of ONNX's element types
SECONDS = 0.3  # of calls, twice as long for others; the difference counts
REPEATS = 3
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


def attention_model(heads: tuple[int, int], head_dim: int, dtype: str) -> bytes:
    """One GroupQueryAttention: q, k, v [1, S, heads * D], past keys and values [1, Hkv, P, D]."""
    from onnx import TensorProto, helper

    query, key = (h * head_dim for h in heads)
    half, integer = _ELEMENTS[dtype], TensorProto.INT32
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
    return _model([node], inputs, outputs)


def _model(nodes: list[Any], inputs: list[Any], outputs: list[Any]) -> bytes:
    from onnx import helper

    graph = helper.make_graph(nodes, "model", inputs, outputs)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return bytes(helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString())


def _session(model: bytes) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=[PROVIDER])


def negation(arrays: list[np.ndarray]) -> tuple[Any, Any]:
    """A session that negates arrays, and its binding with all outputs on the device.

    Python can allocate nothing there, so this is how numbers get there; they live as long as the session does.
    """
    from onnx import helper

    def infos(name: str) -> list[Any]:
        pairs = enumerate(arrays)
        return [helper.make_tensor_value_info(f"{name}{i}", _ELEMENTS[a.dtype.name], a.shape) for i, a in pairs]

    nodes = [helper.make_node("Neg", [f"x{i}"], [f"y{i}"]) for i in range(len(arrays))]
    session = _session(_model(nodes, infos("x"), infos("y")))
    binding = session.io_binding()
    for i, array in enumerate(arrays):
        binding.bind_cpu_input(f"x{i}", array)
        binding.bind_output(f"y{i}", DEVICE, 0)
    session.run_with_iobinding(binding)
    return session, binding


def measure(
    heads: tuple[int, int], head_dim: int, rows: int, context: int, dtype: str = "float16", seconds: float = SECONDS
) -> float:
    """Seconds of a call of ``rows`` new tokens, the last of which sees ``context`` columns."""
    session = _session(attention_model(heads, head_dim, dtype))
    random = np.random.default_rng(0)

    def numbers(*dims: int) -> np.ndarray:
        return random.standard_normal(dims, np.float32).astype(dtype)

    # The cache holds the whole context from the start: past and present are then one buffer, as they are in a model.
    arrays = [numbers(1, rows, h * head_dim) for h in (heads[0], heads[1], heads[1])]
    arrays += [numbers(1, heads[1], context, head_dim) for _ in "kv"]
    _owner, made = negation(arrays)
    *given, keys, values = made.get_outputs()
    fence = negation([numbers(1)])
    lengths = {"last_position": np.array([context - 1], np.int32), "total_length": np.array([context], np.int32)}
    binding = session.io_binding()
    for name, value in zip(("query", "key", "value"), given, strict=True):
        binding.bind_ortvalue_input(name, value)
    for name, array in lengths.items():
        binding.bind_cpu_input(name, array)
    for name, value in (("key", keys), ("value", values)):
        binding.bind_ortvalue_input(f"past_{name}", value)
        binding.bind_ortvalue_output(f"present_{name}", value)
    binding.bind_output("out", DEVICE, 0)

    def run(calls: int) -> float:
        """Seconds of so many calls, and of reading one number that is made after them on the same queue."""
        start = time.perf_counter()
        for _ in range(calls):
            session.run_with_iobinding(binding)
        fence[0].run_with_iobinding(fence[1])
        fence[1].copy_outputs_to_cpu()
        return time.perf_counter() - start

    calls = 4
    while run(calls) < seconds:  # doubling is the warm-up, too
        calls *= 2
    taken = median((run(2 * calls) - run(calls)) / calls for _ in range(REPEATS))
    if taken <= 0:
        raise SystemExit(f"{2 * calls} calls take no longer than {calls}")
    return taken


def main(argv: list[str]) -> None:
    heads, *sizes = argv
    query, _, key = heads.partition("/")
    head_dim, rows, context = map(int, sizes)
    print(json.dumps(measure((int(query), int(key)), head_dim, rows, context)))


if __name__ == "__main__":
    main(sys.argv[1:])
