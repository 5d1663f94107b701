"""What a model of the zoo is: a module with random weights, the inputs of some calls, and what may change its size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.export import Dim

from .files import VARIANTS

Inputs = tuple[Any, ...]


@dataclass(frozen=True)
class Prepared:
    """A module that is ready to be exported.

    ``calls`` are the inputs of one call after the other; the first ones are those that it is exported with, so they
    have the largest sizes that ``dynamic`` allows (``dynamic_shapes`` of torch.export), unless ``example`` has other
    inputs for the export: the partitioner makes its sizes a delegate's bounds. Where ``methods`` has several modules by
    name, each call begins with such a name. ``strict`` exports through TorchDynamo.
    """

    module: nn.Module
    calls: Sequence[Inputs]
    dynamic: Any = None
    methods: dict[str, nn.Module] = field(default_factory=dict)
    example: Inputs | None = None
    strict: bool = False


@dataclass(frozen=True)
class ZooModel:
    """``prepare(full)`` builds a model: thin, or at the size that people use.

    ``variants``: the ways in which the stock exporter can export it (``files.VARIANTS``).
    """

    name: str
    family: str
    prepare: Callable[[bool], Prepared]
    variants: tuple[str, ...]


Preparing = Callable[[bool], Prepared]
MODELS: dict[str, ZooModel] = {}


def zoo(name: str, variants: tuple[str, ...] = VARIANTS) -> Callable[[Preparing], Preparing]:
    """Adds a model to the zoo. Its family is the module that it stands in."""

    def register(prepare: Preparing) -> Preparing:
        assert name not in MODELS, name
        MODELS[name] = ZooModel(name, prepare.__module__.rsplit(".", 1)[-1], prepare, variants)
        return prepare

    return register


def randomized(module: nn.Module) -> nn.Module:
    """``module`` in evaluation, with weights that keep activations near one, and running statistics and affine weights
    that are not zeros and ones: a small answer would hide an error, and a zero a term that is left out.
    """
    generator = torch.Generator().manual_seed(0)

    def fill(values: torch.Tensor | None, mean: float, deviation: float) -> None:
        if values is not None:
            values.copy_(mean + deviation * torch.randn(values.shape, generator=generator))

    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Linear | nn.modules.conv._ConvNd) and not nn.utils.parametrize.is_parametrized(part):
                transposed = isinstance(part, nn.modules.conv._ConvTransposeNd)
                fan_in = part.weight[0].numel() if not transposed else part.weight[:, 0].numel() // 2
                fill(part.weight, 0.0, 1.2 / max(1, fan_in) ** 0.5)
                fill(part.bias, 0.0, 0.1)
            elif isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None:
                fill(part.running_mean, 0.0, 0.1)
                part.running_var.copy_(0.5 + torch.rand(part.running_var.shape, generator=generator))
            if isinstance(part, nn.modules.batchnorm._NormBase | nn.GroupNorm | nn.LayerNorm):
                fill(part.weight, 1.0, 0.2)
                fill(part.bias, 0.0, 0.1)
    return module.eval()


def noise(*dims: int, seed: int = 0) -> torch.Tensor:
    """Normally distributed float32."""
    return torch.randn(dims, generator=torch.Generator().manual_seed(seed))


def tokens(*dims: int, below: int, seed: int = 0) -> torch.Tensor:
    """Integers of [1, below)."""
    return torch.randint(1, below, dims, generator=torch.Generator().manual_seed(seed))


class FirstOutput(nn.Module):
    """A model of transformers with a tensor as its output, which a tuple or dictionary of it begins with."""

    def __init__(self, model: nn.Module, **options: Any) -> None:
        super().__init__()
        self.model = model
        self.options = options

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.model(*inputs, return_dict=False, **self.options)[0]


def images(module: nn.Module, size: int, batches: tuple[int, ...] = (1,)) -> Prepared:
    """Square images, the number of which changes from call to call if ``batches`` has several."""
    calls = [(noise(batch, 3, size, size, seed=i),) for i, batch in enumerate(batches)]
    dynamic = ({0: Dim("batch", min=1, max=batches[0])},) if len(batches) > 1 else None
    return Prepared(randomized(module), calls, dynamic)


def resizable(module: nn.Module, multiple: int, sizes: tuple[tuple[int, int], ...]) -> Prepared:
    """Single images, the height and width of which change; they are multiples of a number."""
    calls = [(noise(1, 3, h, w, seed=i),) for i, (h, w) in enumerate(sizes)]
    height = Dim("height", min=1, max=sizes[0][0] // multiple)
    width = Dim("width", min=1, max=sizes[0][1] // multiple)
    return Prepared(randomized(module), calls, ({2: multiple * height, 3: multiple * width},))
