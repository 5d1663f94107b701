"""Lines that move, alias or write memory. See ``programs_vocabulary``."""

from __future__ import annotations

import torch

from .programs_scope import Scope, dtype_of, is_float, is_integer
from .programs_vocabulary import SCALARS, Family, _near


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def reshape(s: Scope) -> object:
    x = s.pick()
    if x is None:
        return None
    tensor = s[x]
    form = s.one_of(("view", "reshape"))
    count = tensor.numel()
    if count == 0:
        return s.assign(f"{x}.{form}({s.sizes(reversed(tensor.shape))})") if tensor.dim() else None
    first = s.one_of(_divisors(count))
    rest = count // first
    second = s.one_of(_divisors(rest))
    options = (
        f"{x}.{form}(-1)",
        f"{x}.{form}({s.size(first)}, {s.size(rest)})",
        f"{x}.{form}({s.size(first)}, -1)",
        f"{x}.{form}({s.size(first)}, {s.size(second)}, {s.size(rest // second)})",
        f"{x}.flatten()",
        f"torch.flatten({x}, 1)",
    )
    return s.assign(s.one_of(options))


def axes(s: Scope) -> object:
    x = s.pick(lambda t: t.dim() > 0)
    if x is None:
        return None
    rank = s[x].dim()
    order = list(range(rank))
    for i in range(rank - 1, 0, -1):
        j = s.integer(0, i)
        order[i], order[j] = order[j], order[i]
    a, b = s.integer(0, rank - 1), s.integer(-rank, rank - 1)
    options = [
        f"{x}.permute({', '.join(map(str, order))})",
        f"{x}.transpose({a}, {b})",
        f"{x}.unsqueeze({s.integer(-rank - 1, rank)})",
        f"{x}.squeeze({a})",
        f"{x}.squeeze()",
        f"{x}.flip({a})",
        f"{x}.movedim({a}, {b})",
    ]
    if rank == 2:
        options.append(f"{x}.t()")
    return s.assign(s.one_of(options))


def part(s: Scope) -> object:
    x = s.pick(lambda t: t.dim() > 0 and t.numel() > 0)
    if x is None:
        return None
    shape = s[x].shape
    dim = s.integer(0, len(shape) - 1)
    n = shape[dim]
    before = ":, " * dim
    index = s.integer(-min(n, 2), min(n, 2) - 1)
    low = s.integer(0, min(n, 2) - 1)
    options = [
        f"{x}[{before}{index}]",
        f"{x}.select({dim}, {index})",
        f"{x}[{before}{low}:]",
        f"{x}[{before}:{min(n, low + 1)}]",
        f"{x}[..., {s.integer(-min(shape[-1], 2), min(shape[-1], 2) - 1)}]",
        f"{x}[{before}::2]",
        f"{x}[{before}:-1]",
        f"{x}.narrow({dim}, {low}, 1)",
        f"{x}[{before}{low}:{s.size(n)}]",
        f"{x}[{before}-1:]",
        f"{x}[None]",
    ]
    return s.assign(s.one_of(options))


def spread(s: Scope) -> object:
    x = s.pick()
    if x is None:
        return None
    shape = s[x].shape
    wide = [s.integer(2, 3) if n == 1 else n for n in shape]
    options = [
        f"{x}.expand({s.sizes([2, *shape])})",
        f"{x}.expand({s.sizes(wide)})" if wide else f"{x}.expand(3)",
        f"{x}.repeat({', '.join(['2', *['1'] * (len(shape) - 1)])})" if shape else f"{x}.repeat(2)",
        f"torch.broadcast_to({x}, ({s.sizes([2, *shape])},))",
    ]
    near = _near(s, x)
    if near is not None:
        options.append(f"{x}.expand_as({near})")
    expression = s.one_of(options)
    # The exporter refuses most programs in which an expanded tensor itself is stored.
    return s.assign(expression if s.chance(25) else s.one_of((f"{expression} + 0", f"{expression} * 2")))


def joined(s: Scope) -> object:
    x = s.pick(lambda t: t.dim() > 0)
    if x is None:
        return None
    tensor = s[x]
    y = s.pick(lambda t: t.shape == tensor.shape)
    dim = s.integer(0, tensor.dim() - 1)
    options = (
        f"torch.cat([{x}, {y}], {dim})",
        f"torch.stack([{x}, {y}], {dim})",
        f"torch.cat(({x}, {y}, {x}), {dim})",
        f"torch.stack([{x}, {y}], -1)",
    )
    return s.assign(s.one_of(options))


def pieces(s: Scope) -> object:
    x = s.pick(lambda t: t.dim() > 0 and max(t.shape) > 1)
    if x is None:
        return None
    shape = s[x].shape
    dim = s.one_of([d for d, n in enumerate(shape) if n > 1])
    n = shape[dim]
    if n % 2 == 0 and s.chance(50):
        return s.assign(f"{x}.chunk(2, {dim})", 2)
    if s.chance(50):
        return s.assign(f"{x}.split([1, {s.size(n)} - 1], {dim})", 2)
    return s.assign(f"torch.unbind({x}, {dim})", n) if s.size(n) == str(n) else None


def copied(s: Scope) -> object:
    x = s.pick()
    if x is None:
        return None
    options = [
        "{}.clone()",
        "{}.contiguous()",
        "{}.detach()",
        "{} * 1",
        "{} + 0",
        "torch.nn.functional.dropout({}, training=False)",
    ]
    if s[x].dim() == 4:
        options += ["{}.contiguous(memory_format=torch.channels_last)", "{}.to(memory_format=torch.channels_last)"]
    return s.assign(s.one_of(options).format(x))


def in_place(s: Scope) -> object:
    """A write to a buffer, to a value, or to a view of either."""
    x = _destination(s)
    if x is None:
        return None
    y = s.one_of(SCALARS) if s.chance(40) else _source(s, x)
    if y is None:
        return None
    y = _as_stored(s, x, y, s[x])
    options = [
        f"{x}.add_({y})",
        f"{x}.mul_({y})",
        f"{x}.sub_({y})",
        f"{x}.copy_({y})",
        f"{x} += {y}" if not x.startswith("self.") else f"{x}.add_({y}, alpha=2)",
        f"{x}.clamp_(-1, 1)",
        f"{x}.zero_()",
        f"{x}.fill_({s.one_of(SCALARS)})",
        f"{x}.neg_()",
        f"{x}.relu_()",
    ]
    return s.write(s.one_of(options), x)


def assigned(s: Scope) -> object:
    """An assignment to an index, or an update through one."""
    x = _destination(s)
    if x is None or s[x].dim() == 0 or s[x].numel() == 0:
        return None
    shape = s[x].shape
    dim = s.integer(0, len(shape) - 1)
    before = ":, " * dim
    index = s.one_of(
        (
            f"{x}[{before}{s.integer(-min(shape[dim], 2), min(shape[dim], 2) - 1)}]",
            f"{x}[{before}{s.integer(0, min(shape[dim], 2) - 1)}:]",
            f"{x}[{before}::2]",
            f"{x}[{before}:1]",
            f"{x}[...]",
        )
    )
    with_names = s.env
    try:
        target = eval(index, with_names)
    except Exception:
        return None
    y = s.one_of(SCALARS) if s.chance(40) else s.pick(lambda t: _broadcasts(t, target))
    if y is None:
        return None
    y = _as_stored(s, x, y, target)
    form = s.one_of((f"{index} = {y}", f"{index} = {y}", f"{index} += {y}", f"{index} *= {y}", f"{index}.add_({y})"))
    return s.write(form, x)


def masked(s: Scope) -> object:
    x = _destination(s)
    if x is None:
        return None
    mask = s.pick(lambda t: t.dtype == torch.bool and _broadcasts(t, s[x]))
    return mask and s.write(f"{x}.masked_fill_({mask}, {s.one_of(SCALARS)})", x)


def _as_stored(s: Scope, x: str, y: str, target: torch.Tensor) -> str:
    """A value as ``x`` stores it.

    The exporter forgets the dims and dtype of a buffer that is copied to, and drops copies of one buffer to another.
    """
    if y not in s.tensors():
        return y
    text = y
    if s[y].shape != target.shape and target.dim():
        text += f".expand({s.sizes(target.shape)})"
    if s[y].dtype != s[x].dtype:
        return f"{text}.to(torch.{dtype_of(s[x])})"
    return f"{text}.clone()" if y in s.stored or text != y else y


def _destination(s: Scope) -> str | None:
    buffers = [n for n in s.stored if n.startswith("self.b")]
    if buffers and s.chance(60):
        return s.one_of(buffers)
    if s.inputs and s.chance(3):
        return s.pick(lambda t: any(t is s[n] for n in s.inputs))
    frozen = {
        s[n].untyped_storage().data_ptr()
        for n in [*s.inputs, *(n for n in s.stored if n not in buffers)]
        if isinstance(s[n], torch.Tensor)
    }
    return s.pick(lambda t: t.untyped_storage().data_ptr() not in frozen)


def _broadcasts(value: torch.Tensor, target: torch.Tensor) -> bool:
    if value.dim() > target.dim():
        return False
    return all(a in (1, b) for a, b in zip(reversed(value.shape), reversed(target.shape), strict=False))


def _source(s: Scope, x: str) -> str | None:
    target = s[x]
    same_kind = s.chance(70)

    def fits(t: torch.Tensor) -> bool:
        kind = is_float(t) == is_float(target) and is_integer(t) == is_integer(target)
        return _broadcasts(t, target) and (kind or not same_kind)

    return s.pick(fits)


MOVES: tuple[tuple[int, Family], ...] = (
    (7, reshape),
    (7, axes),
    (8, part),
    (4, spread),
    (5, joined),
    (4, pieces),
    (4, copied),
    (14, in_place),
    (9, assigned),
    (1, masked),
)
