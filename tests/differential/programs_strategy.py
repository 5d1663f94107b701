"""Models, drawn line by line, and the ways to export them.

Every draw is a number between two: from hypothesis in a test, and from a seeded generator in a long run, whose models
are more diverse than those that hypothesis makes of each other.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from .programs_export import BLOCKABLE, Flavour
from .programs_model import (
    DYNAMIC_EXAMPLE,
    DYNAMIC_MAX,
    DYNAMIC_MIN,
    FLOATS,
    Call,
    Filled,
    Input,
    Line,
    Model,
    Source,
    Stored,
    build,
    method_inputs,
)
from .programs_scope import Drawing, Integer, Scope
from .programs_views import MOVES
from .programs_vocabulary import COMPUTE, Family, mapped

SHAPES = (
    (3, 4),
    (2, 3, 4),
    (4,),
    (1, 3, 2, 4),
    (3, 1),
    (1,),
    (),
    (2, 2),
    (1, 4),
    (2, 3, 2, 2),
    (4, 6),
    (1, 2, 3, 2, 2),
)
EMPTY = ((0,), (0, 3), (0, 2, 2), (2, 0))  # of most others the exporter says that it has no strides of 0
INPUT_DTYPES = (
    ("float32",) * 9
    + ("int64",) * 3
    + ("int32", "int32", "bool", "bool", "float64", "float16", "uint8", "int8", "int16", "bfloat16")
)
STORED_DTYPES = ("float32",) * 9 + (
    "int64",
    "int64",
    "int32",
    "bool",
    "float64",
    "float16",
    "uint8",
    "int8",
    "int16",
    "bfloat16",
)


def draw_model(integer: Integer) -> Model:
    """A model of one or two methods over a few shared buffers and constants, and one to four calls of them."""
    d = Drawing(integer)
    special = d.chance(5)
    shapes = tuple(d.one_of(SHAPES) for _ in range(3))
    if d.chance(12):
        shapes = ((1, 3, 2, 4), (2, 3, 2, 2), (1, 4, 3, 3))
    stored = []
    for position in range(d.integer(0, 3)):
        kind = d.one_of(("buffer", "buffer", "parameter", "constant"))
        filled = _filled(d, STORED_DTYPES, shapes, special)
        if kind == "parameter" and filled.dtype not in FLOATS:
            kind = "buffer"
        stored.append(Stored(f"{kind[0]}{position}", kind, filled, d.integer(0, 999)))
    methods: list[Source] = []
    flags = [False, False]
    written: set[str] = set()
    for position in range(2 if stored and d.chance(22) else 1):
        name = ("forward", "other")[position]
        method, scope = _method(d, name, tuple(stored), shapes, special)
        methods.append(method)
        flags = [flags[0] or scope.discontinuous, flags[1] or scope.host_only]
        written |= scope.written
    calls = tuple(
        Call(
            i if i < len(methods) else d.integer(0, len(methods) - 1),
            d.integer(0, 999),
            d.integer(DYNAMIC_MIN, DYNAMIC_MAX),
        )
        for i in range(max(len(methods), d.integer(1, 4)))
    )
    marked = tuple(replace(s, written=f"self.{s.name}" in written) for s in stored)
    return Model(marked, tuple(methods), calls, *flags)


def _method(
    d: Drawing, name: str, stored: tuple[Stored, ...], shapes: tuple[tuple[int, ...], ...], special: bool
) -> tuple[Source, Scope]:
    inputs = _inputs(d, shapes, special)
    module = build(Model(stored, (Source(name, inputs, (), ("None",)),), ()))
    dynamic = any(i.dynamic and i.filled for i in inputs)
    scope = Scope(d.integer, module, dynamic, special)
    scope.stored = [f"self.{s.name}" for s in stored]
    scope.host_only = any(s.filled.values == "extreme" for s in stored)
    for described, value in zip(inputs, method_inputs(Source(name, inputs, (), ()), 0), strict=True):
        scope.env[described.name] = value
        scope.names.append(described.name)
        if described.filled is not None:
            scope.inputs.append(described.name)
            scope.host_only |= described.filled.values == "extreme"
    _lines(d, scope, d.one_of((COMPUTE + MOVES,) * 3 + (MOVES, COMPUTE)))
    return Source(name, inputs, _exportable(scope.lines), _returns(d, scope)), scope


def _inputs(d: Drawing, shapes: tuple[tuple[int, ...], ...], special: bool) -> tuple[Input, ...]:
    dynamic = d.chance(18)
    inputs = []
    for position in range(d.integer(1, 3)):
        filled = _filled(d, INPUT_DTYPES, shapes, special)
        if filled.layout == "transposed" and not d.chance(30):  # which the stock runtime does not take
            filled = replace(filled, layout="contiguous")
        if dynamic and (position == 0 or d.chance(50)):
            shape = (DYNAMIC_EXAMPLE, *filled.shape[1:])
            filled = Filled(filled.dtype, tuple(n or 1 for n in shape), filled.values, "contiguous")
            inputs.append(Input(f"x{position}", filled, None, (0,)))
        else:
            inputs.append(Input(f"x{position}", filled))
    if d.chance(14):
        symbolic = d.chance(35)
        number = DYNAMIC_EXAMPLE if symbolic else d.one_of((3, 2.5, True, False, -1, 0.1))
        inputs.append(Input(f"n{len(inputs)}", None, number, (0,) if symbolic else ()))
    return tuple(inputs)


def _lines(d: Drawing, scope: Scope, families: tuple[tuple[int, Family], ...]) -> None:
    total = sum(weight for weight, _ in families)
    for _ in range(d.integer(3, 11)):
        if d.chance(1) and d.chance(30):
            mapped(scope)
            continue
        at = d.integer(0, total - 1)
        for weight, family in families:
            at -= weight
            if at < 0:
                family(scope)
                break


def _exportable(lines: list[Line]) -> tuple[Line, ...]:
    """Lines without dropout if anything is written: its result is the argument in torch, and a copy in the exporter."""
    if all(line.targets for line in lines):
        return tuple(lines)
    return tuple(
        replace(line, text=re.sub(r"torch.nn.functional.dropout\((\S+), .*\)", r"\1.detach()", line.text))
        for line in lines
    )


def _returns(d: Drawing, scope: Scope) -> tuple[str, ...]:
    """Outputs: mostly what nothing else reads; now and then inputs, constants, buffers, and one value twice."""
    read = set().union(*(line.reads for line in scope.lines)) if scope.lines else set()
    unread = [n for n in scope.names if n.startswith("v") and n not in read]
    returns = [n for n in unread[-5:] if not d.chance(15)]
    # A constant that is returned and read by a delegate stops the exporter.
    stored = scope.stored if d.chance(30) else [n for n in scope.stored if n.startswith("self.b")]
    everything = [n for n in [*scope.names, *stored] if not n.startswith("n")]
    if not returns or d.chance(35):
        returns.append(d.one_of(everything))
    buffers = [n for n in scope.stored if n.startswith("self.b")]
    if buffers and d.chance(45):
        returns.append(d.one_of(buffers))
    if d.chance(8):
        returns.append(d.one_of(returns))
    if d.chance(6):
        returns.append(f"{d.one_of(returns)}.clone()")
    if d.chance(15):
        returns.reverse()
    return tuple(returns)


def _filled(d: Drawing, dtypes: tuple[str, ...], shapes: tuple[tuple[int, ...], ...], special: bool) -> Filled:
    dtype = d.one_of(dtypes)
    shape = d.one_of(EMPTY) if d.chance(1) else d.one_of(shapes)
    if dtype in FLOATS:
        values = "special" if special else d.one_of(("dyadic", "dyadic", "decimal", "normal"))
    else:
        values = "extreme" if d.chance(6) else d.one_of(("small", "small", "odd"))
    layout = "contiguous"
    if len(shape) == 4 and d.chance(50):
        layout = "channels_last"
    elif len(shape) == 2 and d.chance(20):
        layout = "transposed"
    return Filled(dtype, shape, values, layout)


def draw_flavour(integer: Integer) -> Flavour:
    """A way to export with the VulkanPartitioner."""
    d = Drawing(integer)
    blocked: frozenset[str] = frozenset()
    if d.chance(45):
        blocked = frozenset(d.one_of(BLOCKABLE) for _ in range(d.integer(1, 6)))
    return Flavour(
        vulkan=True,
        alias_buffer_mutations=not d.chance(50),
        force_fp16=d.chance(5),
        skip_bool_tensors=d.chance(15),
        blocked=blocked,
        external_constants=d.chance(5),
        skip_dim_order=d.chance(15),
        keep_state=not d.chance(50),
    )


def draw_host_flavour(integer: Integer) -> Flavour:
    """A way to export without a partitioner."""
    d = Drawing(integer)
    return Flavour(
        vulkan=False,
        external_constants=d.chance(6),
        skip_dim_order=d.chance(20),
        remove_views=not d.chance(12),
        reinplace=d.chance(10),
        share_buffers=not d.chance(20),
        plan_inputs=not d.chance(10),
        keep_state=not d.chance(50),
    )


@dataclass(frozen=True)
class Example:
    """A model, and how it is exported."""

    model: Model
    flavour: Flavour


def draw_example(integer: Integer) -> Example:
    """One example by any source of numbers. What a GPU cannot compute as torch does is exported without delegates."""
    model = draw_model(integer)
    if Drawing(integer).chance(40) or model.host_only:
        flavour = draw_host_flavour(integer)
    else:
        flavour = draw_flavour(integer)
        flavour = replace(flavour, force_fp16=flavour.force_fp16 and not model.discontinuous)
    if any(i.name in method.returns for method in model.methods for i in method.inputs):
        flavour = replace(flavour, plan_inputs=True)  # the stock runtime answers with memory that it freed
    if not flavour.keep_state:  # then the exporter drops what a written buffer holds at first
        zeroed = [replace(s, filled=replace(s.filled, values="zeros")) if s.written else s for s in model.stored]
        model = replace(model, stored=tuple(zeroed))
    return Example(model, flavour)


def seeded_example(seed: int, number: int) -> Example:
    """An example of a long run; the same for the same numbers."""
    return draw_example(random.Random(f"{seed} {number}").randint)


@st.composite
def examples(draw: st.DrawFn) -> Example:
    """Examples for a property test."""
    return draw_example(lambda low, high: draw(st.integers(low, high)))
