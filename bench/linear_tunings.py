"""What ``bench_linear --sweep`` tries: tunings of the kernels over packed weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from executorch_webgpu.ops.matmul import gemm, gemm_matrix, gemv

KERNELS = {
    "gemv": "matmul/gemv",
    "gemm": "matmul/gemm",
    "matrix": "matmul/gemm_matrix",
    "matrix_f16": "matmul/gemm_matrix",
}


@dataclass(frozen=True)
class Tuned:
    """A route with a tuning; None: the default one."""

    route: str | None
    tuning: Any = None
    name: str = ""

    @property
    def tunings(self) -> Mapping[str, object]:
        """As ``Planning`` takes it."""
        return {} if self.route is None or self.tuning is None else {KERNELS[self.route]: self.tuning}


def of_few_rows() -> Iterator[Tuned]:
    """gemv as it is tuned, then exactly these numbers, whatever the size of the matrix, then without subgroups."""
    yield Tuned("gemv")
    for size, lanes, quads, unroll in product((64, 128, 256), (32, 64, 128), (1, 2, 4), (1, 2, 4, 8)):
        if lanes <= size and 2 <= quads * unroll <= 8:
            exact = gemv.Tuning(size, lanes, quads, unroll, loads=64, sums=64, invocations=1, workgroups=1)
            yield Tuned("gemv", exact, f"{size}/{lanes} x{quads} u{unroll}")
    yield Tuned("gemv", gemv.Tuning(subgroups=False), "no subgroups")


def of_many_rows() -> Iterator[Tuned]:
    yield Tuned("gemm")
    for shape in ((2, 2, 16), (1, 2, 16), (2, 1, 16), (1, 1, 32), (1, 1, 16), (2, 2, 8)):
        yield Tuned("gemm", gemm.Tuning((gemm.Tile(*shape),), 1), "{}x{} d{}".format(*shape))
    for route in ("matrix", "matrix_f16"):
        yield Tuned(route)
        for sizes in _MATRIX_TILES:
            tile = gemm_matrix.Tile(*sizes)
            yield Tuned(route, gemm_matrix.Tuning((tile,), workgroups=1), "{}x{} of {}x{} d{}".format(*sizes))


# Subgroups down and across, matrices of each down and across, depth.
_MATRIX_TILES = (
    (2, 2, 4, 4, 16),
    (2, 2, 4, 4, 32),
    (2, 4, 4, 2, 32),
    (4, 2, 2, 4, 32),
    (2, 4, 4, 2, 64),
    (2, 2, 4, 4, 64),
    (2, 4, 4, 4, 32),
    (4, 2, 4, 4, 32),
    (2, 4, 2, 2, 32),
    (2, 2, 4, 2, 32),
    (2, 2, 2, 4, 32),
    (2, 2, 2, 2, 32),
    (2, 2, 2, 2, 64),
)
