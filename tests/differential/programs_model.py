"""A generated model: what it stores, its methods as lines of Python, and the calls that a test makes.

A model is data: it is drawn, printed as the source of a torch module, built, shrunk line by line, and its inputs are
made again from seeds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "bool": torch.bool,
}
FLOATS = ("float32", "float64", "float16", "bfloat16")
NAME = re.compile(r"self\.\w+|\b[vxn]\d+\b")


def names_in(text: str) -> set[str]:
    """The values that a piece of source names."""
    return set(NAME.findall(text))


@dataclass(frozen=True)
class Filled:
    """A tensor by its recipe. ``values``: dyadic, decimal, normal, special, small, odd, extreme or zeros;
    ``layout``: contiguous, channels_last or transposed."""

    dtype: str
    shape: tuple[int, ...]
    values: str = "dyadic"
    layout: str = "contiguous"

    def tensor(self, *seed: int) -> torch.Tensor:
        """The tensor of a seed, the same on every machine."""
        rng = np.random.default_rng([abs(part) for part in seed])
        tensor = torch.from_numpy(np.asarray(_values(rng, self))).to(DTYPES[self.dtype])
        if self.layout == "channels_last" and tensor.dim() == 4:
            return tensor.contiguous(memory_format=torch.channels_last)
        if self.layout == "transposed" and tensor.dim() >= 2:
            return tensor.transpose(-1, -2).contiguous().transpose(-1, -2)
        return tensor


def _values(rng: np.random.Generator, filled: Filled) -> np.ndarray:
    shape, dtype = filled.shape, filled.dtype
    if filled.values == "zeros":
        return np.zeros(shape)
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if dtype not in FLOATS:
        info = np.iinfo(dtype)
        if filled.values == "extreme":
            return rng.choice(np.array([info.min, info.max, info.max - 1, info.min + 1, 0, 1, 7], dtype), shape)
        low = 0 if info.min == 0 else -9
        values = rng.integers(low, 10, shape)
        return (values * 2 + 1 if filled.values == "odd" else values).astype(dtype)
    match filled.values:
        case "decimal":
            return rng.integers(-12, 13, shape) / 10
        case "normal" | "special":
            normal = rng.standard_normal(shape)
            if filled.values == "special":
                odd = rng.choice([np.nan, np.inf, -np.inf, -0.0, 0.0, 1e4], shape)
                normal = np.where(rng.random(shape) < 0.4, odd, normal)
            return np.asarray(normal)
        case "odd":  # never near zero
            return (rng.integers(-4, 4, shape) * 2 + 1) / 4
        case _:
            return rng.integers(-16, 17, shape) / 8


@dataclass(frozen=True)
class Stored:
    """A tensor that a module holds. ``kind``: buffer, parameter, or constant (a plain attribute)."""

    name: str
    kind: str
    filled: Filled
    seed: int
    written: bool = False  # by some method


@dataclass(frozen=True)
class Input:
    """An argument of a method: a tensor, or a plain number.

    A number that is not dynamic is the same in every call, since the exporter computes with it.
    """

    name: str
    filled: Filled | None
    plain: int | float | bool | None = None
    dynamic: tuple[int, ...] = ()  # dims that change from call to call


@dataclass(frozen=True)
class Line:
    """A statement of a method. ``targets`` are the names that it gives a value."""

    text: str
    targets: tuple[str, ...] = ()

    @property
    def reads(self) -> set[str]:
        """The names that must have a value before it."""
        return names_in(self.text) - set(self.targets)


@dataclass(frozen=True)
class Source:
    """A method of a model, as source."""

    name: str
    inputs: tuple[Input, ...]
    lines: tuple[Line, ...]
    returns: tuple[str, ...]


@dataclass(frozen=True)
class Call:
    """One step of a test: a method, the seed of its inputs, and the size of its dynamic dims."""

    method: int
    seed: int
    size: int


@dataclass(frozen=True)
class Model:
    """``discontinuous``: a small error may become a large one (comparisons, rounding, casts to integers).
    ``host_only``: it does so by values that the floats of a GPU do not have exactly."""

    stored: tuple[Stored, ...]
    methods: tuple[Source, ...]
    calls: tuple[Call, ...]
    discontinuous: bool = False
    host_only: bool = False


DYNAMIC_EXAMPLE, DYNAMIC_MIN, DYNAMIC_MAX = 5, 2, 7


def source(model: Model) -> str:
    """The model as Python, to be read or run."""
    out = ["class Model(nn.Module):", "    def __init__(self):", "        super().__init__()"]
    for stored in model.stored:
        value = f"{stored.filled}.tensor({stored.seed})"
        match stored.kind:
            case "buffer":
                out.append(f"        self.register_buffer({stored.name!r}, {value})")
            case "parameter":
                out.append(f"        self.{stored.name} = nn.Parameter({value}, requires_grad=False)")
            case _:
                out.append(f"        self.{stored.name} = {value}")
    for method in model.methods:
        out += ["", f"    def {method.name}({', '.join(['self', *(i.name for i in method.inputs)])}):"]
        out += [f"        # {i.name}: {i.filled or repr(i.plain)} {i.dynamic or ''}".rstrip() for i in method.inputs]
        out += [f"        {line.text}" for line in method.lines]
        out.append(f"        return ({', '.join(method.returns)},)")
    out.append("")
    out += [f"# {model.methods[call.method].name}: seed {call.seed}, dynamic size {call.size}" for call in model.calls]
    return "\n".join(out) + "\n"


def build(model: Model) -> nn.Module:
    """A new module, as the source states it."""
    scope: dict[str, Any] = {"nn": nn, "torch": torch, "Filled": Filled}
    exec(compile(source(model), "<model>", "exec"), scope)
    return scope["Model"]().eval()


def method_inputs(method: Source, seed: int, size: int = DYNAMIC_EXAMPLE) -> tuple[Any, ...]:
    """The arguments of one call."""
    values: list[Any] = []
    for position, described in enumerate(method.inputs):
        if described.filled is None:
            values.append(size if described.dynamic else described.plain)
            continue
        shape = tuple(size if d in described.dynamic else n for d, n in enumerate(described.filled.shape))
        recipe = Filled(described.filled.dtype, shape, described.filled.values, described.filled.layout)
        values.append(recipe.tensor(seed, position))
    return tuple(values)


def call_inputs(model: Model, call: Call) -> tuple[Any, ...]:
    """The arguments of a step."""
    return method_inputs(model.methods[call.method], call.seed, call.size)


def eager(model: Model, shared: bool = True) -> list[list[Any]]:
    """What torch answers to every call. Without ``shared``, each method has buffers of its own.

    Inputs that a method writes come first, as the exporter makes outputs of them.
    """
    module = build(model)
    modules = [module if shared else build(model) for _ in model.methods]
    return run_calls(model, [getattr(m, method.name) for m, method in zip(modules, model.methods, strict=True)])


def run_calls(
    model: Model, methods: Sequence[Callable[..., Any]], between: Callable[[int], None] = lambda m: None
) -> list[list[Any]]:
    """The answers of every call; see ``eager``. ``between`` is called after each, with the number of its method."""
    results = []
    with torch.no_grad():
        for call in model.calls:
            inputs = call_inputs(model, call)
            tensors = [value for value in inputs if isinstance(value, torch.Tensor)]
            before = [value._version for value in tensors]
            outputs = [_kept(value) for value in methods[call.method](*inputs)]
            written = [_kept(x) for x, version in zip(tensors, before, strict=True) if x._version != version]
            results.append([*written, *outputs])
            between(call.method)
    return results


def _kept(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else value
