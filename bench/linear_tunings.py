"""What ``bench_linear --sweep`` tries: tunings of the kernels over packed weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from executorch_webgpu.ops.matmul import gemm, gemm_few, gemm_matrix, gemv

KERNELS = {
    "gemv": "matmul/gemv",
    "gemm": "matmul/gemm",
    "matrix": "matmul/gemm_matrix",
    "matrix_f16": "matmul/gemm_matrix",
    "few": "matmul/gemm_few",
    "few_f16": "matmul/gemm_few",
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
    yield from _on_cores(1)


def _on_cores(*row_tiles: int) -> Iterator[Tuned]:
    """Tiles of gemm_few, of 16 times as many rows."""
    for route, rows, sizes, ahead in product(("few", "few_f16"), row_tiles, _FEW_TILES, (1, 2, 3, 4)):
        tile = gemm_few.Tile(rows, *sizes, ahead=ahead)
        tuning = gemm_few.Tuning((tile,), (tile,), narrow=(), wide=())
        yield Tuned(route, tuning, "{} rows, {}x{} by {} along K, d{}, {} ahead".format(tile.rows, *sizes, ahead))


def of_many_rows() -> Iterator[Tuned]:
    yield from _on_cores(1, 2, 4)
    yield Tuned("gemm")
    for shape in ((2, 4, 16), (2, 2, 16), (1, 2, 16), (2, 1, 16), (1, 1, 32), (1, 1, 16), (2, 2, 8)):
        yield Tuned("gemm", gemm.Tuning((gemm.Tile(*shape),), 1, wide=None), "{}x{} d{}".format(*shape))
    for route in ("matrix", "matrix_f16"):
        yield Tuned(route)
        for sizes in _MATRIX_TILES:
            tile = gemm_matrix.Tile(*sizes)
            yield Tuned(route, gemm_matrix.Tuning((tile,), workgroups=1), "{}x{} of {}x{} d{}".format(*sizes))


# Subgroups across, matrices of each across, subgroups along K, depth.
_FEW_TILES = ((4, 1, 1, 64), (4, 1, 2, 64), (8, 1, 1, 64), (1, 1, 8, 64), (2, 1, 4, 64))

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
