"""Methods that share a buffer whose first contents are in the file, which then has no name there."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from executorch.exir import ExecutorchBackendConfig, to_edge_transform_and_lower
from executorch.exir.passes import MemoryPlanningPass
from executorch.exir.passes.init_mutable_pass import InitializedMutableBufferPass
from torch import nn

from executorch_webgpu import Runtime


class Counter(nn.Module):
    total: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.tensor([3.0, 5.0]))

    def add(self, x: torch.Tensor) -> torch.Tensor:
        self.total.add_(x)
        return x * 2

    def read(self, x: torch.Tensor) -> torch.Tensor:
        return self.total * x


class Method(nn.Module):
    def __init__(self, counter: Counter, name: str) -> None:
        super().__init__()
        self.counter, self.name = counter, name

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = getattr(self.counter, self.name)(x)
        return result


def test_what_one_method_writes_another_reads() -> None:
    counter, x = Counter(), torch.tensor([1.0, 10.0])
    methods = {name: torch.export.export(Method(counter, name), (x,)) for name in ("add", "read")}
    config = ExecutorchBackendConfig(
        passes=[InitializedMutableBufferPass(["total"])],
        memory_planning_pass=MemoryPlanningPass(share_mutable_buffers=True),
    )
    lowered: Any = to_edge_transform_and_lower(methods)
    data = bytes(lowered.to_executorch(config).buffer)
    with Runtime.get().load_program(data) as program:
        add, read = program.load_method("add"), program.load_method("read")
        for step in range(3):
            np.testing.assert_allclose(read.execute([x])[0], (counter.total * x).numpy())
            add.execute([x * step])
            counter.add(x * step)
        read.state.reset()
        np.testing.assert_allclose(add.execute([x])[0], (x * 2).numpy())
        np.testing.assert_allclose(read.execute([x])[0], ((torch.tensor([3.0, 5.0]) + x) * x).numpy())
