"""One call of an operator held against torch: the device's results, and the reference's in the dtypes of torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from executorch_webgpu.gpu.device import Device
from executorch_webgpu.ops.registry import find

from .harness import In, OpProgram, Out, as_float64, assert_close

Array = np.ndarray
_ON_DEVICE = {np.dtype(np.int64): np.dtype(np.int32), np.dtype(np.float64): np.dtype(np.float32)}
_HALF = {"absolute": 2e-3, "relative": 2e-3}


def operator(name: str) -> Any:
    """Torch's operator of a name such as ``aten.sum.default``."""
    namespace, op, overload = name.split(".")
    return getattr(getattr(getattr(torch.ops, namespace), op), overload)


def by_torch(name: str, x: Array, args: Sequence[Any]) -> list[Array]:
    """Its results for arguments in the order of the schema, keyword-only ones included."""
    op = operator(name)
    rest = op._schema.arguments[1:]
    assert len(rest) == len(args), f"{name} takes {[a.name for a in rest]}"
    keywords: dict[str, Any] = {a.name: v for a, v in zip(rest, args, strict=True)}
    dtypes = {a.name for a in rest if str(a.type) in ("Optional[int]", "int") and a.name == "dtype"}
    for key in dtypes & keywords.keys():
        keywords[key] = None if keywords[key] is None else {v: k for k, v in CODES.items()}[keywords[key]]
    first = op._schema.arguments[0].name
    results = op(**{first: torch.from_numpy(np.array(x))}, **keywords)
    return [np.asarray(r) for r in (results if isinstance(results, tuple) else [results])]


# Torch's numbers of its dtypes.
CODES = {torch.uint8: 0, torch.int8: 1, torch.int16: 2, torch.int32: 3, torch.int64: 4, torch.float16: 5}
CODES |= {torch.float32: 6, torch.float64: 7, torch.bool: 11}


def check(device: Device, name: str, x: Array, *args: Any) -> None:
    """The device on ``x``, in the device's dtypes, and the reference on ``x`` as it is, give what torch gives."""
    expected = by_torch(name, x, args)
    op = find(name)
    assert op is not None, name
    many = "list" in str(op.kinds[-1])
    found = op.reference(as_float64(x), *args)
    _compare(found if many else [found], expected)

    outs = [Out(e.shape, str(_device_dtype(e.dtype))) for e in expected]
    given = x.astype(np.uint32) if x.dtype == np.bool_ else x.astype(_device_dtype(x.dtype))
    dtype = "bool" if x.dtype == np.bool_ else str(given.dtype)
    with OpProgram(device, name, [In(x.shape, dtype), *args], outs if many else outs[0]) as program:
        program.poison()
        got = program.run([given])
        again = program.run([given])
    for one, other in zip(got if many else [got], again if many else [again], strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes(), "two runs differ"
    _compare(got if many else [got], expected)


def _device_dtype(dtype: np.dtype) -> np.dtype:
    return _ON_DEVICE.get(dtype, dtype)


def _compare(results: Sequence[Any], expected: Sequence[Array]) -> None:
    for found, e in zip(results, expected, strict=True):
        got = np.asarray(found).astype(_device_dtype(e.dtype))
        assert_close(got, e, **(_HALF if e.dtype == np.float16 else {}))
