"""Linear layers as a program of their own: their data, their float64 answer, and their dispatches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from executorch_webgpu.format.vkgraph import VkGraph
from executorch_webgpu.gpu.buffers import upload
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.graph.build import build_graph
from executorch_webgpu.graph.constants import ConstantPool
from executorch_webgpu.graph.execute import GraphExecutor
from executorch_webgpu.graph.memory import Kind
from executorch_webgpu.graph.state import Command
from executorch_webgpu.ops.fused_linear import WEIGHT_FORMATS, fused_linear_reference
from executorch_webgpu.ops.plan import Planning
from tests.graph_builder import GraphBuilder

GROUP = 32
EPS = 1e-5
SAMPLES = 6
Array = np.ndarray


@dataclass(frozen=True)
class Case:
    """``rows`` rows of x times matrices of ``widths`` output and ``k`` input features; see ``fused_linear``."""

    weight_format: str
    rows: int
    widths: tuple[int, ...]
    k: int
    norm: bool = False
    gated: bool = False
    residual: bool = False

    @property
    def name(self) -> str:
        fused = [word for word in ("norm", "gated", "residual") if getattr(self, word)]
        return " ".join(["N" + "+".join(map(str, self.widths)), f"K{self.k}", *fused])

    @property
    def few_rows(self) -> bool:
        return self.rows <= 8

    @property
    def outputs(self) -> tuple[int, ...]:
        return self.widths[:1] if self.gated else self.widths

    @property
    def weight_bytes(self) -> int:
        """Of codes and scales, which a call must read."""
        layout = WEIGHT_FORMATS[self.weight_format]
        if layout is None:
            return 4 * self.k * sum(self.widths)
        groups = -(-self.k // GROUP) if layout.grouped else 1
        group_bytes = np.dtype(layout.scales_dtype).itemsize * (2 if layout.mins else 1)
        return sum(self.widths) * (-(-self.k * layout.bits // 8) + groups * group_bytes)

    @property
    def operations(self) -> int:
        """Multiplications and additions."""
        return 2 * self.rows * self.k * sum(self.widths)


class LinearCalls:
    """``copies`` calls of a case, each with weights of its own, on a device. Close it, or use it as a context manager.

    The weights stay on the device while ``executor`` makes programs with other routes or tunings.
    """

    def __init__(self, device: Device, case: Case, copies: int) -> None:
        self.device, self.case, self.copies = device, case, copies
        rng = np.random.default_rng(0)
        self._x = rng.standard_normal((case.rows, case.k), np.float32)
        self._norm = rng.uniform(0.5, 1.5, case.k).astype(np.float32) if case.norm else None
        self._residual = rng.standard_normal((case.rows, case.widths[0]), np.float32) if case.residual else None
        self._matrices = [_matrix(rng, case.weight_format, n, case.k) for n in case.widths]
        self._graph = build_graph(self._described())
        self._constants = ConstantPool(device, lambda view: None)
        self._keepers: list[GraphExecutor] = []

    def __enter__(self) -> LinearCalls:
        return self

    def __exit__(self, *_: object) -> None:
        for keeper in self._keepers:
            keeper.close()

    @contextmanager
    def executor(self, route: str | None, tunings: Mapping[str, object] | None = None) -> Iterator[GraphExecutor]:
        """The program by a route, with tunings of its kernels. The first one of a route keeps its weights there."""
        routes = {"fused_linear": route} if route else {}
        planning = Planning(self.device.features, self.device.limits, routes, tunings=tunings or {})
        made = GraphExecutor(self._graph, self._constants, planning)
        if not self._keepers:
            self._keepers.append(made)
        try:
            yield made
        finally:
            if made not in self._keepers:
                made.close()

    def commands(self, executor: GraphExecutor) -> list[Command]:
        return [command for commands in executor.commands for command in commands]

    def run(self, executor: GraphExecutor) -> list[Array]:
        """The outputs of the first and of the last copy, after the memory that they lie in was filled with NaN."""
        _poison(executor)
        results = executor.execute([a for a in (self._x, self._residual) if a is not None])
        return [np.asarray(result) for result in results]

    def error(self, results: list[Array]) -> float:
        """Largest error of ``run``'s outputs in sampled rows and columns, over the largest number of each there."""
        rows = _sample(self.case.rows)
        columns = [_sample(n) for n in self.case.widths]
        expected = fused_linear_reference(
            self._x[rows].astype(np.float64),
            None if self._norm is None else self._norm.astype(np.float64),
            EPS,
            self.case.weight_format,
            [m[0][c] for m, c in zip(self._matrices, columns, strict=True)],
            [m[1][..., c, :] if m[1].ndim == 3 else m[1][..., c] for m, c in self._scaled(columns)],
            GROUP,
            [None] * len(columns),
            self.case.gated,
            None if self._residual is None else self._residual[np.ix_(rows, columns[0])].astype(np.float64),
        )
        errors = [
            np.abs(result[np.ix_(rows, c)] - e).max() / np.abs(e).max()
            for results_of_copy in (results[: len(expected)], results[-len(expected) :])
            for result, c, e in zip(results_of_copy, columns, expected, strict=False)
        ]
        return float(np.max(errors))

    def _scaled(self, columns: list[Array]) -> Iterator[tuple[list[Array], Array]]:
        """Matrices that have scales, and their sampled columns."""
        return ((m, c) for m, c in zip(self._matrices, columns, strict=True) if len(m) == 2)

    def _described(self) -> VkGraph:
        case, build = self.case, GraphBuilder()
        x = build.input((case.rows, case.k))
        residual = build.input((case.rows, case.widths[0])) if case.residual else None
        norm = None if self._norm is None else build.constant(self._norm)
        for copy in range(self.copies):
            outs = [build.tensor((case.rows, n)) for n in case.outputs]
            weights = [build.constant(m[0]) for m in self._matrices]
            scales = [build.constant(m[1]) for m in self._matrices if len(m) == 2]
            biases = [None] * len(weights)
            rest = [GROUP, biases, case.gated, residual, outs]
            build.call("et_webgpu.fused_linear.default", x, norm, EPS, case.weight_format, weights, scales, *rest)
            if copy in (0, self.copies - 1):
                build.output(*outs)
        return build.build()


def _matrix(rng: np.random.Generator, weight_format: str, n: int, k: int) -> list[Array]:
    """Random weights that keep the sums near one: codes and scales, or floats."""
    layout = WEIGHT_FORMATS[weight_format]
    if layout is None:
        return [rng.standard_normal((n, k), np.float32) * np.float32(k**-0.5)]
    nbytes = k if layout.bits == 8 and not layout.grouped else -(-k * layout.bits // 32) * 4
    codes = np.frombuffer(rng.bytes(n * nbytes), layout.dtype).reshape(n, nbytes)
    dims = (-(-k // GROUP), -(-n // 4) * 4) if layout.grouped else (n,)
    scales = rng.uniform(0.5, 1.5, dims) * k**-0.5 / 2 ** (layout.bits - 2)
    if layout.mins:
        scales = np.stack([scales, -7.5 * scales], axis=-1)
    return [codes, scales.astype(layout.scales_dtype)]


def _sample(n: int) -> Array:
    """The first and the last of ``n``, and some in between."""
    return np.unique([0, n - 1, *np.random.default_rng(n).integers(0, n, SAMPLES)])


def _poison(executor: GraphExecutor) -> None:
    for index, storage in enumerate(executor.memory.storages):
        if storage.kind is Kind.SHARED:
            buffer = executor._bound.buffer(index)
            upload(executor.device, buffer, np.full(buffer.size // 4, np.nan, np.float32))
