"""The references are what torch computes, in float64: every sample of an operator that torch has by the same name.

Also where inputs are NaN, infinite or zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from executorch_webgpu.ops.registry import find, names

from .harness import Const, In, Mutable, Out, Sym, as_float64
from .samples import SAMPLES, Sample
from .torch_calls import torch_overload

# What torch leaves open: contents of memory, and sizes of bags where no gradient needs them.
OPEN = {"aten.empty.memory_format", "aten._embedding_bag.default", "aten._embedding_bag_forward_only.default"}
OPS = [name for name in names() if torch_overload(name) is not None and name not in OPEN]
WIDE = {torch.float32: torch.float64, torch.float16: torch.float64, torch.int32: torch.int64}
# Where torch computes in fewer bits, as an operator's dtype asks for.
LOOSE = {torch.float32: (2e-3, 2e-3), torch.float16: (2e-3, 2e-3), torch.bfloat16: (2e-2, 2e-2)}
# Families of which every element that is not finite goes where torch has it.
WILD = {"indexing", "pad", "pool", "reduce", "reindex", "softmax"}
# Kernels of torch that exist for some dtypes only.
OF_FLOAT32 = ("aten._weight_int8pack_mm.default",)


@pytest.mark.parametrize("op", OPS)
def test_reference_is_what_torch_computes(op: str) -> None:
    found = find(op)
    assert found is not None
    compared, refusals = 0, []
    family = found.plan.__module__.split(".")[2]
    wild_too = found.elementwise or (family in WILD and "_mean" not in op)  # torch makes NaN of means with infinities
    for sample in {id(s.args): s for s in SAMPLES if s.op == op}.values():
        named = {a.name: arg for a, arg in zip(torch_overload(op)._schema.arguments, sample.args, strict=True)}
        if named.get("sorted") is False:
            continue  # any order will do
        kinds = [(False, False), (True, False), (False, True)]
        for live, wild in kinds if wild_too and _is_of_floats(sample) else kinds[:2]:
            given = sample.inputs(live, seed=7)
            if wild:
                given = [_with_special_numbers(array) for array in given]
            with np.errstate(all="ignore"):
                wanted = found.reference(*_resolved(sample, given, _for_reference))
            try:
                got = _torch(sample, given)
            except (RuntimeError, NotImplementedError, TypeError) as e:  # what torch has not for every dtype
                refusals.append(str(e))
                continue
            _compare(got, wanted, sample)
            compared += 1
    assert compared, refusals


def test_torch_has_most_operators() -> None:
    """So that a change of names does not leave the test above with nothing to do."""
    assert len(OPS) > 0.9 * len([name for name in names() if name.startswith("aten.")])


def _is_of_floats(sample: Sample) -> bool:
    """Whether no result is an integer that a float becomes, which may be any if that is not finite."""
    outs = sample.out if isinstance(sample.out, list) else [sample.out]
    return len(outs) > 1 or "int" not in outs[0].dtype


def _torch(sample: Sample, given: list[Any]) -> Any:
    overload = torch_overload(sample.op)
    arguments = overload._schema.arguments
    narrow = sample.op in OF_FLOAT32
    values = _resolved(sample, given, lambda array, dtype: _tensor(array, dtype, narrow))
    if isinstance(sample.out, Out) and "dtype" in (named := [a.name for a in arguments]):
        place = named.index("dtype")
        values[place] = WIDE.get(_dtype(sample.out.dtype), _dtype(sample.out.dtype))
    values = [
        torch.contiguous_format if a.name == "memory_format" and v is None and "Optional" not in str(a.type) else v
        for a, v in zip(arguments, values, strict=True)
    ]
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


def _with_special_numbers(given: Any) -> Any:
    """Floats with NaN, infinite numbers and zeros among them; anything else as it is."""
    if not isinstance(given, np.ndarray) or given.dtype.kind != "f":
        return given
    random, result = np.random.default_rng(3), given.copy()
    places = np.asarray(random.random(given.shape) < 0.2)
    result[places] = random.choice([np.nan, np.inf, -np.inf, 0.0, -0.0], int(places.sum()))
    return result


def _for_reference(array: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "bfloat16":
        return array.astype(np.float64)
    return array != 0 if dtype == "bool" else as_float64(array)


def _tensor(array: np.ndarray, dtype: str, narrow: bool) -> torch.Tensor:
    if dtype == "bfloat16":
        array = array.astype(np.float32)
    tensor = torch.from_numpy(np.array(array != 0 if dtype == "bool" else array))
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
        rtol, atol = LOOSE.get(tensor.dtype, (1e-9, 1e-12))
        if tensor.dtype == torch.bfloat16:
            tensor = tensor.to(torch.float32)
        with np.errstate(all="ignore"):
            array = array != 0 if out.dtype == "bool" else array.astype(str(tensor.dtype).removeprefix("torch."))
        np.testing.assert_allclose(array, tensor.numpy(), rtol, atol, err_msg=str(sample))
