"""Lines that people write, by family. Each function draws one from the values at hand; it may draw none."""

from __future__ import annotations

from collections.abc import Callable

import torch

from .programs_scope import Scope, dtype_of, is_float

Family = Callable[[Scope], object]

SCALARS = ("2", "1", "-1", "0.5", "0.1", "0.3", "0.7", "-3", "3", "1.5", "True", "0", "-0.25", "7")
DIVISORS = ("2", "3", "-2", "-3", "0.5", "0.1", "0.3", "7", "-0.25", "1.5")


def _near(s: Scope, name: str) -> str | None:
    """Another tensor that broadcasts with this one."""
    shape = s[name].shape

    def fits(other: torch.Tensor) -> bool:
        pairs = zip(reversed(shape), reversed(other.shape), strict=False)
        return all(a == b or a == 1 or b == 1 for a, b in pairs)

    return s.pick(fits)


def _other(s: Scope, name: str, scalars: tuple[str, ...] = SCALARS) -> str | None:
    return s.one_of(scalars) if s.chance(45) else _near(s, name)


def unary(s: Scope) -> object:
    x = s.pick()
    if x is None:
        return None
    exact = ("-{}", "{}.abs()", "torch.relu({})", "{}.neg()", "torch.nn.functional.hardtanh({})", "torch.square({})")
    lossy = (
        "torch.tanh({})",
        "torch.sigmoid({})",
        "torch.exp({})",
        "torch.cos({})",
        "torch.sin({})",
        "torch.nn.functional.gelu({})",
        "torch.nn.functional.silu({})",
        "torch.nn.functional.hardswish({})",
        "torch.nn.functional.leaky_relu({})",
        "torch.rsqrt({}.abs() + 1)",
        "torch.log({}.abs() + 1)",
        "torch.pow({}, 2)",
        "{} ** 3",
    )
    if s.chance(45):
        return s.assign(s.one_of(lossy).format(x), exact=False)
    if s.chance(20):
        return s.assign(s.one_of(("torch.sqrt({}.abs())", "{}.reciprocal()", "1 / {}")).format(x), on_host=False)
    if s.chance(15) and is_float(s[x]):
        return s.assign(s.one_of(("torch.round({})", "{}.round()")).format(x), step=True)
    return s.assign(s.one_of(exact).format(x))


def binary(s: Scope) -> object:
    x = s.pick()
    y = x and _other(s, x)
    if x is None or y is None:
        return None
    if s.chance(20):
        x, y = y, x
    form = s.one_of(("{} + {}", "{} - {}", "{} * {}", "torch.maximum({}, {})", "torch.minimum({}, {})"))
    if s.chance(10):
        form = s.one_of(("torch.add({}, {}, alpha=2)", "torch.sub({}, {}, alpha=3)", "torch.add({}, {}, alpha=0.5)"))
    if s.chance(12):
        return s.assign(f"{x} / {y}", on_host=False)
    return s.assign(form.format(x, y))


def division(s: Scope) -> object:
    """Rounded quotients and remainders, of negative numbers too; integers are never divided by zero."""
    x = s.pick(lambda t: t.dtype != torch.bool)
    if x is None:
        return None
    if s.chance(45):
        y = s.one_of(DIVISORS)
    else:
        near = _near(s, x)
        if near is None or s[near].dtype == torch.bool:
            return None
        y = f"({near} * 2 + 1)"
    if s.chance(12):
        return s.assign(s.one_of(("torch.remainder({}, {})", "{} % {}", "torch.fmod({}, {})")).format(x, y), step=True)
    forms = (
        "torch.div({}, {}, rounding_mode='floor')",
        "torch.div({}, {}, rounding_mode='trunc')",
        "{} // {}",
        "torch.floor_divide({}, {})",
    )
    return s.assign(s.one_of(forms).format(x, y), step=True)


def comparison(s: Scope) -> object:
    x = s.pick()
    y = x and _other(s, x)
    if x is None or y is None:
        return None
    return s.assign(f"{x} {s.one_of(('>', '<', '>=', '<=', '==', '!='))} {y}", step=True)


def logic(s: Scope) -> object:
    x = s.pick(lambda t: not is_float(t)) if s.chance(80) else s.pick()
    y = x and _near(s, x)
    if x is None or y is None:
        return None
    if s.chance(25):
        return s.assign(s.one_of(("~{}", "torch.logical_not({})")).format(x), step=is_float(s[x]))
    forms = (
        "{} & {}",
        "{} | {}",
        "{} ^ {}",
        "torch.logical_and({}, {})",
        "torch.logical_or({}, {})",
        "torch.logical_xor({}, {})",
    )
    return s.assign(s.one_of(forms).format(x, y), step=is_float(s[x]) or is_float(s[y]))


def selection(s: Scope) -> object:
    if s.chance(40):
        x = s.pick()
        if x is None:
            return None
        forms = (
            "{}.clamp(-1, 1)",
            "{}.clamp(min=0.3)",
            "torch.clamp({}, max=2)",
            "{}.clamp(0.1, 0.7)",
            "torch.clamp({}, -0.5, None)",
        )
        return s.assign(s.one_of(forms).format(x))
    condition = s.pick(lambda t: t.dtype == torch.bool)
    x = condition and _near(s, condition)
    if condition is None or x is None:
        return None
    y = s.one_of(("0", "1.5", "-1", "False")) if s.chance(35) else _near(s, x)
    return s.assign(f"torch.where({condition}, {x}, {y})")


def cast(s: Scope) -> object:
    x = s.pick()
    if x is None:
        return None
    target = s.one_of(("float32", "int64", "int32", "bool", "float16", "float64", "int8", "uint8", "int16", "bfloat16"))
    if target in ("float32", "float16", "float64", "bfloat16"):
        form = "{}.float()" if target == "float32" and s.chance(50) else f"{{}}.to(torch.{target})"
        return s.assign(form.format(x), exact=target != "bfloat16" or True, step=False)
    if is_float(s[x]):
        if s.special:
            return None
        bounds = "0, 100" if target == "uint8" else "-100, 100"
        return s.assign(f"{x}.clamp({bounds}).to(torch.{target})", step=True)
    return s.assign(s.one_of((f"{x}.to(torch.{target})", f"{x}.type(torch.{target})")))


def reduction(s: Scope) -> object:
    x = s.pick(lambda t: t.numel() > 0 and t.dim() > 0)  # the stock runtime crashes where there is no dim
    if x is None:
        return None
    dim = s.one_of([*range(s[x].dim()), -1])
    keep = s.one_of((False, True))
    if s.chance(20):
        return s.assign(
            s.one_of(("{}.sum()", "torch.any({})", "{}.mean()", "{}.max()", "{}.min()")).format(x),
            exact=not is_float(s[x]),
        )
    if s.chance(15):
        return s.assign(s.one_of(("{}.argmax({})", "{}.argmin({})")).format(x, dim), step=True)
    if s.chance(20):
        return s.assign(s.one_of(("torch.softmax({}, {})", "torch.log_softmax({}, {})")).format(x, dim), exact=False)
    if s.chance(5):
        return s.assign(f"torch.cumsum({x}, {dim})", exact=not is_float(s[x]))
    if s.chance(12):
        return s.assign(f"torch.any({x}, {dim}, keepdim={keep})", step=is_float(s[x]))
    form = s.one_of(
        ("{}.sum({}, keepdim={})", "{}.mean({}, keepdim={})", "{}.amax({}, keepdim={})", "{}.amin({}, keepdim={})")
    )
    return s.assign(form.format(x, dim, keep), exact=not is_float(s[x]) or "am" in form)


def product(s: Scope) -> object:
    x = s.pick(lambda t: is_float(t) and t.dim() in (2, 3))
    if x is None:
        return None
    tensor = s[x]

    def fits(t: torch.Tensor) -> bool:
        return t.dtype == tensor.dtype and t.dim() == tensor.dim() and (t.dim() == 2 or t.shape[0] == tensor.shape[0])

    y = s.pick(lambda t: fits(t) and t.shape[-2] == tensor.shape[-1])
    if y is not None and s.chance(70):
        return s.assign(f"{x} @ {y}", exact=False)
    y = s.pick(lambda t: t.dtype == tensor.dtype and t.dim() == 2 and t.shape[1] == tensor.shape[-1])
    if y is not None and s.chance(70):
        return s.assign(f"torch.nn.functional.linear({x}, {y})", exact=False)
    return s.assign(f"torch.nn.functional.layer_norm({x}, ({s.size(tensor.shape[-1])},))", exact=False)


def embedding(s: Scope) -> object:
    table = s.pick(lambda t: is_float(t) and t.dim() == 2 and t.shape[0] > 1)
    ids = s.pick(lambda t: t.dtype in (torch.int64, torch.int32) and 0 < t.dim() < 3)
    if table is None or ids is None:
        return None
    return s.assign(f"torch.nn.functional.embedding({ids}.clamp(0, 1), {table})")


def creation(s: Scope) -> object:
    x = s.pick()
    if x is None:
        return None
    tensor = s[x]
    if s.chance(50):
        like = ("torch.zeros_like({})", "torch.ones_like({})", "torch.full_like({}, 3)", "torch.full_like({}, 0.1)")
        return s.assign(s.one_of(like).format(x))
    shape = f"({s.sizes(tensor.shape)}{',' if tensor.dim() == 1 else ''})"
    forms = (
        f"torch.full({shape}, 0.3)",
        f"torch.zeros({shape})",
        f"torch.ones({shape}, dtype=torch.{dtype_of(tensor)})",
        f"torch.full({shape}, 7, dtype=torch.{dtype_of(tensor)})",
        f"torch.arange({s.size(tensor.shape[-1]) if tensor.dim() else 3})",
        f"torch.arange({s.size(tensor.shape[-1]) if tensor.dim() else 3}, dtype=torch.float32)",
        "torch.tensor([0.1, -2.0])",
        "torch.tensor(3)",
        "torch.tensor(0.3)",
        "torch.arange(1, 6, 2)",
    )
    return s.assign(s.one_of(forms))


def plain(s: Scope) -> object:
    """A plain argument beside a tensor."""
    numbers = [n for n in s.names if isinstance(s.env[n], bool | int | float)]
    x = s.pick()
    if not numbers or x is None:
        return None
    n = s.one_of(numbers)
    if isinstance(s.env[n], bool):
        return s.assign(f"{x} + 1 if {n} else {x} * 2")
    forms = ["{} * {}", "{} + {}", "{} - {}", "torch.div({}, {}, rounding_mode='floor')"]
    if isinstance(s.env[n], int) and s.env[n] > 0:
        forms.append("torch.full_like({}, {})")
        if s.chance(30):  # of more elements than the number becomes: one that fits by its size is a guard
            return s.assign(s.one_of((f"torch.arange(8)[:{n}] * 0.5", f"torch.ones(8, 2)[{n} - 1 :] + 1")))
    form = s.one_of(forms)
    return s.assign(form.format(x, n), step="div" in form)


def branch(s: Scope) -> object:
    """``torch.cond``, by a value that it computes."""
    x = s.pick()
    y = s.pick()
    if x is None or y is None or s[y].numel() == 0:
        return None
    test = s.one_of((f"{y}.sum() > 0", f"{y}.amax() < 1", f"{y}.reshape(-1)[0] > 0.1"))
    if s[y].dtype == torch.bool and s[y].dim() == 0:
        test = y
    yes, no = s.one_of(
        (("a + 1", "a * 2"), ("a.relu()", "a.neg()"), ("a * a - 1", "a.clone()"), ("a - 0.5", "a + 0.5"))
    )
    condition = s.assign(test, step=True)
    return condition and s.assign(f"torch.cond({condition[0]}, lambda a: {yes}, lambda a: {no}, ({x},))")


def mapped(s: Scope) -> object:
    x = s.pick(lambda t: t.dim() > 1 and t.shape[0] > 0)
    if x is None:
        return None
    return s.assign(f"torch._higher_order_ops.map(lambda a, b: a * 2 + b, {x}, {x}[0] * 1)")


COMPUTE: tuple[tuple[int, Family], ...] = (
    (20, binary),
    (10, unary),
    (7, division),
    (7, comparison),
    (4, logic),
    (6, selection),
    (9, cast),
    (8, reduction),
    (4, product),
    (1, embedding),
    (4, creation),
    (8, plain),
    (3, branch),
)
