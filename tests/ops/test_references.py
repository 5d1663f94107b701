"""The references are what torch computes, in float64: every sample of an operator that torch has by the same name."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

from executorch_webgpu.ops.registry import find, names

from .harness import Const, In, Mutable, Out, Sym, as_float64
from .samples import SAMPLES, Sample
from .torch_calls import torch_overload

OPS = [name for name in names() if torch_overload(name) is not None]
WIDE = {torch.float32: torch.float64, torch.float16: torch.float64, torch.int32: torch.int64}
# Kernels of torch that exist for some dtypes only.
OF_FLOAT32 = ("aten._weight_int8pack_mm.default",)


@pytest.mark.parametrize("op", OPS)
def test_reference_is_what_torch_computes(op: str) -> None:
    found = find(op)
    assert found is not None
    compared = 0
    for sample in (s for s in SAMPLES if s.op == op and not s.options):
        for live in (False, True):
            given = sample.inputs(live, seed=7)
            with np.errstate(all="ignore"):
                wanted = found.reference(*_resolved(sample, given, _for_reference))
            try:
                got = _torch(sample, given)
            except (RuntimeError, NotImplementedError) as error:  # what torch has not for every dtype, or takes no None
                assert re.search("not implemented for|not supported|Expected a value of type", str(error)), sample
                continue
            _compare(got, wanted, sample)
            compared += 1
    assert compared


def test_torch_has_most_operators() -> None:
    """So that a change of names does not leave the test above with nothing to do."""
    assert len(OPS) > 0.9 * len([name for name in names() if name.startswith("aten.")])


def _torch(sample: Sample, given: list[Any]) -> Any:
    overload = torch_overload(sample.op)
    arguments = overload._schema.arguments
    narrow = sample.op in OF_FLOAT32
    values = _resolved(sample, given, lambda array, dtype: _tensor(array, dtype, narrow))
    if isinstance(sample.out, Out) and "dtype" in (names := [a.name for a in arguments]):
        place = names.index("dtype")
        values[place] = WIDE.get(_dtype(sample.out.dtype), _dtype(sample.out.dtype))
    count = sum(not a.kwarg_only for a in arguments)
    more = {a.name: value for a, value in zip(arguments[count:], values[count:], strict=True)}
    return overload(*values[:count], **more)


def _resolved(sample: Sample, given: list[Any], convert: Any) -> list[Any]:
    inputs = iter(given)

    def resolve(arg: Any) -> Any:
        match arg:
            case In():
                return convert(next(inputs), arg.dtype)
            case Sym():
                return int(next(inputs))
            case Const() | Mutable():
                return convert(arg.array, str(arg.array.dtype))
            case list():
                return [resolve(item) for item in arg]
        return arg

    return [resolve(arg) for arg in sample.args]


def _for_reference(array: np.ndarray, dtype: str) -> np.ndarray:
    return array != 0 if dtype == "bool" else as_float64(array)


def _tensor(array: np.ndarray, dtype: str, narrow: bool) -> torch.Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(array != 0 if dtype == "bool" else array))
    return tensor.to(tensor.dtype if narrow else WIDE.get(tensor.dtype, tensor.dtype))


def _dtype(name: str) -> torch.dtype:
    return getattr(torch, name)


def _compare(got: Any, wanted: Any, sample: Sample) -> None:
    pairs = zip(got, wanted, strict=True) if isinstance(got, tuple | list) else [(got, wanted)]
    outs = sample.out if isinstance(sample.out, list) else [sample.out]
    for (tensor, array), out in zip(pairs, outs, strict=True):
        if not isinstance(tensor, torch.Tensor):
            assert tensor == array, sample
            continue
        array = np.asarray(array)
        assert tuple(tensor.shape) == array.shape, sample
        with np.errstate(all="ignore"):
            array = array != 0 if out.dtype == "bool" else array.astype(str(tensor.dtype).removeprefix("torch."))
        rtol, atol = (2e-3, 2e-3) if tensor.dtype == torch.float32 else (1e-9, 1e-12)
        np.testing.assert_allclose(array, tensor.numpy(), rtol, atol, err_msg=str(sample))
