"""Sample calls of reductions, softmax, scans and sorting."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

from .harness import Out
from .samples import DTYPES, Input, Sample, _rows

FLOATS = ("float32", "float16")
CODES = {"uint8": 0, "int8": 1, "int16": 2, "int32": 3, "bool": 11}  # of torch's dtypes; floats need none
SUMS = {"sum": True, "nansum": True, "mean": True, "amax": False, "amin": False}  # and whether they take a dtype


def _dims_of(op: str) -> str:
    return {"sum": "aten.sum.dim_IntList", "mean": "aten.mean.dim"}.get(op, f"aten.{op}.default")


def _total_dtype(op: str, dtype: str) -> str:
    if op == "mean":
        return dtype if "float" in dtype else "float32"
    return dtype if "float" in dtype or op.startswith("a") else "int32"


def softmax() -> Iterator[Sample]:
    names = ("aten._softmax.default", "aten.softmax.int", "aten._log_softmax.default", "aten.log_softmax.int")
    for op, dim in itertools.product((*names, "aten._safe_softmax.default"), (-1, 0)):
        yield Sample(op, [_rows(7, 3, 67), dim, False], Out((7, 67)))
    for op in (names[0], names[2], "aten._safe_softmax.default"):
        for dtype, out in (("float16", "float16"), ("float16", "float32"), ("int32", "float32")):
            yield Sample(op, [_rows(7, 3, 68, dtype=dtype), -1, False], Out((7, 68), out))
        yield Sample(op, [_rows(7, 3, 5, dtype="float16"), 0, False], Out((7, 5), "float16"))
        yield Sample(op, [_rows(2, 1, 4100), -1, False], Out((2, 4100)))
        yield Sample(op, [_rows(2, 1, 5000), -1, False], Out((2, 5000)), {"routes": {"softmax": "two_passes"}})
        yield Sample(op, [Input((3, 2000, 2), live=(3, 40, 2)), 1, False], Out((3, 2000, 2)))
    yield Sample(names[0], [Input((2, 4100, 9), live=(1, 1030, 9)), 1, False], Out((2, 4100, 9)))


def reductions() -> Iterator[Sample]:
    yield from _sums_and_extremes()
    yield from _positions()
    yield from _counts()
    yield from _moments()
    yield from _norms()


def _sums_and_extremes() -> Iterator[Sample]:
    x = _rows(7, 3, 2, 67)
    for op, takes_dtype in SUMS.items():
        name, more = _dims_of(op), [None] if takes_dtype else []
        for dims, out in (([-1], (7, 2, 1)), ([0, 2], (1, 2, 1)), ([], (1, 1, 1))):
            yield Sample(name, [x, dims, True, *more], Out(out))
        yield Sample(name, [_rows(7, 3, 131), [0], False, *more], Out((131,)))
        yield Sample(name, [_rows(2, 1, 9001), [1], False, *more], Out((2,)))
        for dtype in DTYPES:
            out_dtype = _total_dtype(op, dtype)
            yield Sample(name, [_rows(7, 3, 13, dtype=dtype), [1], False, *more], Out((7,), out_dtype))
    for dtype in DTYPES:
        x = _rows(7, 3, 13, low=0, high=9)
        yield Sample("aten.sum.dim_IntList", [x, [1], False, CODES.get(dtype)], Out((7,), dtype))
        total = dtype if "float" in dtype else "int32"
        yield Sample("aten.prod.dim_int", [_rows(7, 3, 5, dtype=dtype), -1, False, None], Out((7,), total))
        yield Sample("aten.prod.default", [_rows(3, 2, dtype=dtype, low=-3), None], Out((), total))
        yield Sample("aten.sum.default", [_rows(7, 3, 13, dtype=dtype), None], Out((), total))
        yield Sample("aten.mean.default", [_rows(7, 3, 13, dtype=dtype), None], Out(()))
        for op in ("max", "min"):
            x = _rows(3, 2, dtype=dtype) if dtype == "bool" else _rows(7, 3, 13, dtype=dtype, low=-100, high=100)
            yield Sample(f"aten.{op}.default", [x], Out((), dtype))
    yield Sample("aten.sum.dim_IntList", [_rows(300, 211, 3), [0], False, None], Out((3,)))


def _positions() -> Iterator[Sample]:
    for op, dtype in itertools.product(("max", "min"), DTYPES):
        for dim, kept in ((-1, (7, 2)), (0, (2, 13))):
            x = _rows(7, 3, 2, 13, dtype=dtype)
            yield Sample(f"aten.{op}.dim", [x, dim, False], [Out(kept, dtype), Out(kept, "int32")])
    for op, dtype in itertools.product(("argmax", "argmin"), DTYPES):
        yield Sample(f"aten.{op}.default", [_rows(7, 3, 13, dtype=dtype), -1, False], Out((7,), "int32"))
    for op in ("argmax", "argmin"):
        yield Sample(f"aten.{op}.default", [_rows(7, 3, 2, 67), 0, False], Out((2, 67), "int32"))
        yield Sample(f"aten.{op}.default", [_rows(7, 3, 2, 67), None, False], Out((), "int32"))
    yield Sample("aten.aminmax.default", [_rows(7, 3, 13), 1, False], [Out((7,)), Out((7,))])
    yield Sample("aten.aminmax.default", [_rows(7, 3, 13), None, False], [Out(()), Out(())])


# Ranges of which about a half is rounded to 0, so that not all rows are alike.
_HALF_ZEROS = {"float32": 2e-45, "float16": 6e-8, "bfloat16": 1.4e-40}


def _counts() -> Iterator[Sample]:
    for dtype in DTYPES:
        x = _rows(7, 3, 2, dtype=dtype, low=0, high=_HALF_ZEROS.get(dtype, 1))
        yield Sample("aten.count_nonzero.default", [x, 1], Out((7,), "int32"))
        for op in ("any", "all"):
            yield Sample(f"aten.{op}.dim", [x, 1, False], Out((7,), "uint8" if dtype == "uint8" else "bool"))
    x = _rows(7, 3, 5, 2, dtype="bool")
    yield Sample("aten.count_nonzero.default", [x, None], Out((), "int32"))
    yield Sample("aten.count_nonzero.dim_IntList", [x, [0, 2]], Out((5,), "int32"))
    few = _rows(3, 2, 2, 1, dtype="bool")
    for op in ("any", "all"):
        yield Sample(f"aten.{op}.default", [_rows(2, 1, dtype="bool")], Out((), "bool"))
        for dims, kept in (([1, 2], (3, 1, 1)), ([], (3, 2, 1))):
            yield Sample(f"aten.{op}.dims", [few, dims, True], Out(kept, "bool"))


def _moments() -> Iterator[Sample]:
    for op, dtype in itertools.product(("var", "std"), FLOATS):
        x, out = _rows(7, 3, 5, 11, dtype=dtype), Out((7, 5), dtype)
        yield Sample(f"aten.{op}.correction", [x, [2], 1, False], out)
        yield Sample(f"aten.{op}.correction", [x, [0, 2], 0.5, True], Out((1, 5, 1), dtype))
        yield Sample(f"aten.{op}.correction", [x, None, None, False], Out((), dtype))
        yield Sample(f"aten.{op}.dim", [x, [-1], False, False], out)
        yield Sample(f"aten.{op}.default", [x, True], Out((), dtype))
        yield Sample(f"aten.{op}_mean.correction", [x, [2], 1, False], [out, out])
        yield Sample(f"aten.{op}_mean.dim", [x, [2], True, False], [out, out])


def _norms() -> Iterator[Sample]:
    x = _rows(7, 3, 5, 11)
    for order in (0, 1, 2, 3, 0.5, -1.0, math.inf, -math.inf):
        yield Sample("aten.linalg_vector_norm.default", [x, order, [1], False, None], Out((7, 11)))
    half: list[Any] = [_rows(7, 3, 5, dtype="float16"), 2.0]
    yield Sample("aten.norm.ScalarOpt_dim_dtype", [half[0], None, [0], False, 6], Out((5,)))
    yield Sample("aten.norm.ScalarOpt_dim", [*half, [1], True], Out((7, 1), "float16"))
    yield Sample("aten.norm.Scalar", half, Out((), "float16"))
    yield Sample("aten.norm.ScalarOpt_dtype", [x, 1, 6], Out(()))
    yield Sample("aten.logsumexp.default", [x, [0, 2], False], Out((5,)))
    yield Sample("aten.logsumexp.default", [x, [-1], True], Out((7, 5, 1)))
    yield Sample("aten.logsumexp.default", [_rows(7, 3, 5, dtype="float16"), [0], True], Out((1, 5), "float16"))


# -- scans ------------------------------------------------------------------------------------------------------------


def scans() -> Iterator[Sample]:
    for dtype in DTYPES:
        x = _rows(7, 3, 13, dtype=dtype)
        total = dtype if "float" in dtype else "int32"
        yield Sample("aten.cumsum.default", [x, -1, None], Out((7, 13), total))
        yield Sample("aten.cumsum.default", [_rows(7, 3, 12, dtype=dtype), -1, None], Out((7, 12), total))
        yield Sample("aten.cumsum.default", [x, 0, None], Out((7, 13), total))
        yield Sample("aten.cumprod.default", [_rows(7, 3, 5, dtype=dtype), -1, None], Out((7, 5), total))
        for op in ("cummax", "cummin"):
            for dim in (1, 0):
                yield Sample(f"aten.{op}.default", [x, dim], [Out((7, 13), dtype), Out((7, 13), "int32")])
        if dtype not in ("float32", "bool"):
            code = CODES.get(dtype)
            yield Sample("aten.cumsum.default", [_rows(7, 3, 13, low=0, high=9), 1, code], Out((7, 13), dtype))
    for dtype in FLOATS:
        for dim in (-1, 0):
            yield Sample("aten.logcumsumexp.default", [_rows(7, 3, 13, dtype=dtype), dim], Out((7, 13), dtype))
    for op in ("aten.cumsum.default", "aten.cumprod.default"):
        yield Sample(op, [Input((1, 9001), live=(1, 77), low=0.99, high=1.01), 1, None], Out((1, 9001)))
        yield Sample(op, [Input((300, 3), live=(40, 3), low=0.9, high=1.1), 0, None], Out((300, 3)))


# -- sorting ----------------------------------------------------------------------------------------------------------


def sorts() -> Iterator[Sample]:
    for dtype in DTYPES:
        x = _rows(7, 3, 13, dtype=dtype, low=-99, high=99)
        both, some = ([Out((7, n), dtype), Out((7, n), "int32")] for n in (13, 5))
        yield Sample("aten.sort.default", [x, -1, False], both)
        yield Sample("aten.topk.default", [x, 5, 1, True, True], some)
        yield Sample("aten.median.dim", [x, 1, False], [Out((7,), dtype), Out((7,), "int32")])
    x, index = _rows(7, 3, 13), Out((7, 13), "int32")
    yield Sample("aten.sort.default", [x, 0, True], [Out((7, 13)), index])
    yield Sample("aten.sort.stable", [x, None, -1, True], [Out((7, 13)), index])
    yield Sample("aten.argsort.default", [x, 1, False], index)
    yield Sample("aten.argsort.stable", [x, True, 1, True], index)
    yield Sample("aten.msort.default", [x], Out((7, 13)))
    yield Sample("aten.topk.default", [x, 3, 0, False, False], [Out((3, 13)), Out((3, 13), "int32")])
    yield Sample("aten.kthvalue.default", [x, 4, -1, True], [Out((7, 1)), Out((7, 1), "int32")])
    yield Sample("aten.nanmedian.dim", [x, 0, True], [Out((1, 13)), Out((1, 13), "int32")])
    for dtype in ("float32", "int8"):
        frequent = _rows(7, 3, 13, dtype=dtype, low=-9, high=9)
        yield Sample("aten.mode.default", [frequent, 1, False], [Out((7,), dtype), Out((7,), "int32")])
    for op in ("median", "nanmedian"):
        yield Sample(f"aten.{op}.default", [x], Out(()))
    long = Input((2, 4500), live=(2, 2300))
    yield Sample("aten.sort.default", [long, 1, False], [Out((2, 4500)), Out((2, 4500), "int32")])
    yield Sample("aten.topk.default", [long, 3, 1, True, True], [Out((2, 3)), Out((2, 3), "int32")])
