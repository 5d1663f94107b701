"""Quantization as torch and torchao compute it, to the last code; and division that is exact on every device."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.ao.quantization.fx._decomposed
import torchao.quantization.quant_primitives  # noqa: F401, registers torchao's operators

from executorch_webgpu.errors import UnsupportedProgramError
from executorch_webgpu.gpu.buffers import Readback, create, upload
from executorch_webgpu.gpu.capabilities import Features, Limits
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.gpu.kernel import DEFAULT_ROOTS, Kernels
from executorch_webgpu.graph.build import build_graph
from executorch_webgpu.graph.execute import plan_graph
from executorch_webgpu.ops.plan import Planning
from executorch_webgpu.ops.registry import find

from .harness import In, OpProgram, Out, assert_close, call_graph

RNG = np.random.default_rng(0)
CODES = {"int8": torch.int8, "uint8": torch.uint8, "int16": torch.int16, "int32": torch.int32}
RANGES = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-(2**15), 2**15 - 1), "int32": (-(2**31), 2**31 - 1)}
decomposed = torch.ops.quantized_decomposed


def difficult(*dims: int, scale: float = 0.05) -> np.ndarray:
    """Numbers around ties of ``scale``, far outside, and what is no number."""
    x = (RNG.integers(-600, 600, dims) * np.float32(scale / 2)).astype(np.float32)
    x += RNG.choice(np.array([0, 0, 1e-7, -1e-7, 1e-3], np.float32), dims)
    flat = x.reshape(-1)
    flat[:6] = [np.nan, np.inf, -np.inf, 1e30, -1e30, -0.0]
    return x


def on_device(device: Device, op: str, args: Sequence[Any], out: Out | list[Out]) -> Any:
    """The call with all arrays as inputs, which must agree with its reference, too."""
    arrays = [a for a in args if isinstance(a, np.ndarray)]
    given = [In(a.shape, str(a.dtype)) if isinstance(a, np.ndarray) else a for a in args]
    with OpProgram(device, op, given, out) as program:
        return program.check(arrays)


def as_torch(args: Sequence[Any]) -> list[Any]:
    return [torch.from_numpy(a) if isinstance(a, np.ndarray) else a for a in args]


@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize(("scale", "zero"), [(0.05, 3), (1 / 3, -7), (0.0078125, 0), (1e-9, 1)])
def test_codes_are_those_of_torch(device: Device, dtype: str, scale: float, zero: int) -> None:
    x = difficult(7, 131, scale=scale)
    low, high = (-(2**20), 2**20) if dtype == "int32" else RANGES[dtype]
    args = [x, scale, zero, low, high]
    got = on_device(device, "quantized_decomposed.quantize_per_tensor.default", [*args, None], Out(x.shape, dtype))
    expected = decomposed.quantize_per_tensor.default(*as_torch(args), CODES[dtype])
    np.testing.assert_array_equal(got, expected.numpy())
    args = [got, scale, zero, low, high]
    got = on_device(device, "quantized_decomposed.dequantize_per_tensor.default", [*args, None, None], Out(x.shape))
    expected = decomposed.dequantize_per_tensor.default(*as_torch(args), CODES[dtype])
    np.testing.assert_array_equal(got, expected.numpy())


@pytest.mark.parametrize(("dims", "axis"), [((5, 7), 0), ((3, 5, 7, 2), 1), ((2, 2, 2, 3, 2, 2, 2, 5), 3), ((64,), 0)])
def test_channels_are_those_of_torch(device: Device, dims: tuple[int, ...], axis: int) -> None:
    x, scales = difficult(*dims), RNG.uniform(0.01, 0.1, dims[axis]).astype(np.float32)
    zeros = RNG.integers(-9, 9, dims[axis]).astype(np.int32)
    args = [x, scales, zeros, axis, -128, 127]
    got = on_device(device, "quantized_decomposed.quantize_per_channel.default", [*args, None], Out(dims, "int8"))
    expected = decomposed.quantize_per_channel.default(*as_torch(args), torch.int8)
    np.testing.assert_array_equal(got, expected.numpy())
    args = [got, scales, zeros, axis, -128, 127]
    name = "quantized_decomposed.dequantize_per_channel.default"
    back = on_device(device, name, [*args, None, None], Out(dims))
    np.testing.assert_array_equal(back, decomposed.dequantize_per_channel.default(*as_torch(args), torch.int8).numpy())


@pytest.mark.parametrize("dims", [(7, 33), (2, 5, 64), (1, 1)])
def test_tokens_are_those_of_torch(device: Device, dims: tuple[int, ...]) -> None:
    x = RNG.standard_normal(dims).astype(np.float32) * 3
    outs = [Out((*dims[:-1], 1)), Out((*dims[:-1], 1), "int32")]
    name = "quantized_decomposed.choose_qparams_per_token_asymmetric.default"
    scales, zeros = on_device(device, name, [x, None], outs)
    expected = decomposed.choose_qparams_per_token_asymmetric.default(torch.from_numpy(x), torch.int8)
    np.testing.assert_array_equal(scales, expected[0].to(torch.float32).numpy())
    np.testing.assert_array_equal(zeros, expected[1].numpy())
    args = [x, scales, zeros, -128, 127]
    got = on_device(device, "quantized_decomposed.quantize_per_token.default", [*args, None], Out(dims, "int8"))
    expected = decomposed.quantize_per_token.default(*as_torch(args), torch.int8)
    np.testing.assert_array_equal(got, expected.numpy())


@pytest.mark.parametrize("mapping", ["ASYMMETRIC", "SYMMETRIC", "SYMMETRIC_NO_CLIPPING_ERR"])
@pytest.mark.parametrize(("dims", "block"), [((7, 33), (1, 33)), ((6, 64), (1, 32)), ((4, 6, 10), (2, 6, 5))])
def test_blocks_are_those_of_torchao(
    device: Device, mapping: str, dims: tuple[int, ...], block: tuple[int, ...]
) -> None:
    x = RNG.standard_normal(dims).astype(np.float32) * 3
    given = [x, mapping, list(block)]
    expected = torch.ops.torchao.choose_qparams_affine(
        *as_torch(given), torch.int8, -128, 127, None, None, torch.int8, False
    )
    shape = tuple(expected[0].shape)
    args = [*given, None, -128, 127, None, None, None, False]
    scale, zero = on_device(device, "torchao.choose_qparams_affine.default", args, [Out(shape), Out(shape, "int8")])
    np.testing.assert_array_equal(scale, expected[0].numpy())
    np.testing.assert_array_equal(zero, expected[1].numpy())
    args = [x, list(block), scale, zero]
    got = on_device(device, "torchao.quantize_affine.default", [*args, 1, -128, 127], Out(dims, "int8"))
    expected = torch.ops.torchao.quantize_affine(*as_torch(args), torch.int8, -128, 127)
    np.testing.assert_array_equal(got, expected.numpy())
    args = [got, list(block), scale, zero]
    back = on_device(device, "torchao.dequantize_affine.default", [*args, 1, -128, 127, None], Out(dims))
    expected = torch.ops.torchao.dequantize_affine(*as_torch(args), torch.int8, -128, 127)
    np.testing.assert_array_equal(back, expected.numpy())


def test_parameters_of_what_is_not_finite(device: Device) -> None:
    """As torch has them: a row with NaN has none; one with an infinity an infinite scale."""
    rows = [[1, np.nan, 2], [1, np.inf, -2], [-np.inf, 0, 1], [0, 0, 0], [1e-40, 0, 0], [3e38, -3e38, 0]]
    x = np.array(rows, np.float32)
    args = [x, "ASYMMETRIC", [1, 3], None, -128, 127, None, None, None, False]
    outs = [Out((6,)), Out((6,), "int8")]
    scale, zero = on_device(device, "torchao.choose_qparams_affine.default", args, outs)
    expected = torch.ops.torchao.choose_qparams_affine(
        torch.from_numpy(x), "ASYMMETRIC", [1, 3], torch.int8, -128, 127, None, None, torch.int8, False
    )
    np.testing.assert_array_equal(scale, expected[0].numpy())
    np.testing.assert_array_equal(zero, expected[1].numpy())


def test_a_large_tensor_has_its_parameters_from_several_workgroups(device: Device) -> None:
    x = RNG.standard_normal((3, 7001)).astype(np.float32)
    x[2, 7000], x[0, 0] = 9, -5
    args = [x, -128, 127, 1e-6, None]
    scale, zero = on_device(device, "quantized_decomposed.choose_qparams.tensor", args, [Out((1,)), Out((1,), "int32")])
    expected = decomposed.choose_qparams.tensor(torch.from_numpy(x), -128, 127, 1e-6, torch.int8)
    assert scale[0] == np.float32(expected[0][0]) and zero[0] == expected[1][0]


def test_references_take_what_the_host_has() -> None:
    """int64 zero points and float64 scales, as the portable operators give them."""
    x = RNG.standard_normal((3, 8)).astype(np.float32)
    choose = find("quantized_decomposed.choose_qparams_per_token_asymmetric.default")
    quantize = find("quantized_decomposed.quantize_per_token.default")
    assert choose is not None and quantize is not None
    scale, zero = choose.reference(x, 1)
    expected = decomposed.choose_qparams_per_token_asymmetric.default(torch.from_numpy(x), torch.int8)
    np.testing.assert_array_equal(zero, expected[1].numpy())
    codes = quantize.reference(x, scale.astype(np.float64), zero.astype(np.int64), -128, 127, 1)
    assert_close(codes.astype(np.int8), codes)


AFFINE = {
    "rest": ([In((4, 6)), [1, 4], In((6,)), None, 1, None, None], "divide"),
    "scales": ([In((4, 6)), [1, 6], In((3,)), None, 1, None, None], "4 elements"),
    "rank": ([In((4, 6)), [1], In((4,)), None, 1, None, None], "2 block sizes"),
    "dtype": ([In((4, 6), "int8"), [1, 6], In((4,)), None, 1, None, None], "must hold floats"),
    "range": ([In((4, 6)), [1, 6], In((4,)), None, 9, None, None], "range of codes"),
}


@pytest.mark.parametrize(("args", "message"), AFFINE.values(), ids=AFFINE)
def test_what_does_not_fit_is_refused(args: list[Any], message: str) -> None:
    graph = build_graph(call_graph("torchao.quantize_affine.default", args, Out((4, 6), "int8")))
    with pytest.raises(UnsupportedProgramError, match=message):
        plan_graph(graph, Planning(Features.none(), Limits.floor()))


# -- division ---------------------------------------------------------------------------------------------------------

DIVIDE = """
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read> estimates: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
{% include "wgsl/exact_quotient.wgsl" %}
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) gid: vec3<u32>) {
  if (gid.x < arrayLength(&a)) {
    out[gid.x] = corrected_quotient(a[gid.x], b[gid.x], estimates[gid.x]);
  }
}
"""


def test_quotients_are_exact_whatever_a_device_estimates(device: Device, tmp_path: Path) -> None:
    """Estimates that are off by up to three units in the last place, powers of two included."""
    count = 1 << 14
    a, b = (np.ldexp(RNG.uniform(1, 2, count), RNG.integers(-30, 30, count)).astype(np.float32) for _ in "ab")
    a[:4096] = np.ldexp(b[:4096], RNG.integers(-9, 9, 4096))  # quotients of a power of two,
    a[:2048] = np.nextafter(a[:2048], np.float32(np.inf))  # and next to one
    a[1024:3072] *= -1
    b[4096:] *= RNG.choice(np.array([-1, 1], np.float32), count - 4096)
    exact = a / b
    off = RNG.integers(-3, 4, count).astype(np.int32)
    got = run_division(device, tmp_path, [a, b, (exact.view(np.int32) + off).view(np.float32)])
    np.testing.assert_array_equal(got, exact)


def run_division(device: Device, folder: Path, inputs: list[np.ndarray]) -> np.ndarray:
    (folder / "divide.wgsl").write_text(DIVIDE)
    kernels = Kernels(device, [folder, *DEFAULT_ROOTS])
    nbytes = inputs[0].nbytes
    buffers = [create(device, nbytes, "numbers") for _ in range(4)]
    readback, pipeline = Readback(device, "quotients"), kernels.pipeline("divide")
    try:
        for buffer, array in zip(buffers, inputs, strict=False):
            upload(device, buffer, array.view(np.uint32))
        names = re.findall(r"\d\) var<[^>]*> (\w+)", DIVIDE)
        encoder = device.encoder()
        work = encoder.begin_compute_pass()
        work.set_pipeline(pipeline.raw)
        bound = {name: (buffer, 0, nbytes) for name, buffer in zip(names, buffers, strict=True)}
        work.set_bind_group(0, kernels.bind_group(pipeline, bound))
        work.dispatch_workgroups(inputs[0].size // 64)
        work.end()
        readback.copy(encoder, [(buffers[-1], 0, nbytes)])
        device.submit([encoder.finish()])
        (raw,) = readback.read()
        return np.asarray(raw).view(np.float32).copy()
    finally:
        readback.close()
        for buffer in buffers:
            buffer.destroy()
