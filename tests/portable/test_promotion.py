"""The dtype in which elementwise operators are computed on the host, against torch's own rules."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.portable.promotion import common_dtype, promoted

DTYPES = {
    "bool": torch.bool,
    "uint8": torch.uint8,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}
TENSORS = st.tuples(st.sampled_from(sorted(DTYPES)), st.sampled_from([(), (3,)]))
NUMBERS = st.sampled_from([True, 2, -1, 0.5])


def array_of(dtype: str, dims: tuple[int, ...]) -> np.ndarray:
    return np.ones(dims, ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


@settings(deadline=None, max_examples=500)
@given(a=TENSORS, b=st.one_of(TENSORS, NUMBERS))
def test_the_common_dtype_is_torchs(a: tuple[str, tuple[int, ...]], b: Any) -> None:
    theirs = [torch.ones(a[1], dtype=DTYPES[a[0]]), b]
    ours: list[Any] = [array_of(*a), b]
    if isinstance(b, tuple):
        theirs[1], ours[1] = torch.ones(b[1], dtype=DTYPES[b[0]]), array_of(*b)
    assert DTYPES[common_dtype(ours).name] == torch.result_type(*theirs)


def test_numbers_are_rounded_to_what_they_are_compared_with() -> None:
    x, number = promoted([np.array([0.1], np.float32), 0.1], None, discontinuous=True)
    assert x == number
    half, number = promoted([np.array([0.1], np.float16), 0.1], None, discontinuous=True)
    assert half.dtype == np.float32 and half == number


def test_integers_of_a_float_result_are_floats_and_none_stays() -> None:
    a, b = promoted([np.array([3], np.int64), 2], np.dtype(np.float32), discontinuous=False)
    assert a.dtype == b.dtype == np.float32
    assert promoted([np.array([3], np.int8), None, 300], None, discontinuous=False)[1:] == [None, 44]  # as an int8
