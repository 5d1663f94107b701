"""Read a kernel's declaration out of its WGSL: bindings, ``struct Params``, overrides, workgroup size.

The WGSL is the only place where these are written.  This is not a WGSL parser: it reads the few global
declarations that we allow in a kernel, and refuses the ones that it would have to guess at.
"""

from __future__ import annotations

import ast
import math
import operator
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import KernelError

Number = int | float | bool

_SCALARS = {"u32": "I", "i32": "i", "f32": "f"}
_SHORT_VECTORS = {"u": "u32", "i": "i32", "f": "f32", "h": "f16"}
_INTEGER_RANGE = {"u32": (0, 2**32 - 1), "i32": (-(2**31), 2**31 - 1), "bool": (0, 1)}
_SCALAR_BYTES = {"u32": 4, "i32": 4, "f32": 4, "f16": 2, "bool": 4}


@dataclass(frozen=True)
class Binding:
    """``@group(0) @binding(index) var<...> name: type``."""

    index: int
    name: str
    access: str  # "read" | "read_write" | "uniform"
    type: str


@dataclass(frozen=True)
class ParamField:
    """One member of ``struct Params`` at its byte offset in the uniform address space."""

    name: str
    type: str
    offset: int
    scalar: str  # u32, i32 or f32
    count: int  # of them


@dataclass(frozen=True)
class Override:
    """``override name: type = default``; without a default the pipeline must set it."""

    name: str
    type: str
    default: str | None
    id: str | None  # of ``@id(n)``: the key by which the engine then knows it


@dataclass(frozen=True)
class KernelSource:
    """A rendered kernel and what its text declares."""

    name: str
    code: str
    bindings: tuple[Binding, ...]
    params: tuple[ParamField, ...]
    params_size: int  # bytes, a multiple of 16; 0 without params
    overrides: Mapping[str, Override]
    constants: Mapping[str, str]  # module-scope ``const`` declarations
    workgroup_size: tuple[str, str, str]  # expressions over constants and overrides
    workgroup_vars: tuple[tuple[str, str], ...]  # (name, type) of ``var<workgroup>``
    checks: str  # that the engine adds, if it can leave them out: "all", "bounds" of indices only, or "none"

    def pack_params(self, values: Mapping[str, Any]) -> bytes:
        """The bytes of ``params``: exactly one value per member, checked against its type.

        Vectors take as many numbers as they have components; ``array<vec4<T>, N>`` takes N vectors or 4*N
        numbers.  Raises KernelError for a missing or extra name or a value out of range.
        """
        self.check_names("parameter", {f.name for f in self.params}, values)
        data = bytearray(self.params_size)
        for member in self.params:
            numbers = list(_flatten(values[member.name]))
            if len(numbers) != member.count:
                raise KernelError(
                    f"kernel {self.name!r}: parameter {member.name!r} is {member.type} and needs {member.count} "
                    f"numbers, not {len(numbers)}"
                )
            try:
                converted = numbers if member.scalar == "f32" else [operator.index(n) for n in numbers]
                struct.pack_into(f"<{member.count}{_SCALARS[member.scalar]}", data, member.offset, *converted)
            except (struct.error, TypeError, OverflowError) as exc:
                raise KernelError(
                    f"kernel {self.name!r}: parameter {member.name!r} cannot hold {values[member.name]!r} "
                    f"as {member.type}"
                ) from exc
        return bytes(data)

    def resolve_overrides(self, values: Mapping[str, Number]) -> dict[str, Number]:
        """Pipeline constants by the engine's key.

        Raises KernelError for an unknown or missing name, or a value that its type cannot hold.
        """
        required = {n for n, o in self.overrides.items() if o.default is None}
        unknown = sorted(set(values) - set(self.overrides))
        missing = sorted(required - set(values))
        if unknown or missing:
            raise KernelError(_names_message(self.name, "override", missing, unknown))
        for name, value in values.items():
            self._check_override(self.overrides[name], value)
        return {self.overrides[n].id or n: float(v) for n, v in values.items()}

    def _check_override(self, override: Override, value: Number) -> None:
        """Engines take any number here, and wgpu-native wraps or rounds one that does not fit."""
        low, high = _INTEGER_RANGE.get(override.type, (-math.inf, math.inf))
        whole = override.type not in _INTEGER_RANGE or float(value).is_integer()
        if not (whole and low <= value <= high):
            raise KernelError(
                f"kernel {self.name!r}: override {override.name!r} cannot hold {value!r} as {override.type}"
            )

    def workgroup(self, overrides: Mapping[str, Number]) -> tuple[int, int, int]:
        """The workgroup size with these overrides."""
        x, y, z = (self._evaluate(e, overrides) for e in self.workgroup_size)
        return x, y, z

    def workgroup_bytes(self, overrides: Mapping[str, Number]) -> int | None:
        """Bytes of workgroup memory, or None when a variable's type is more than arrays of numbers."""
        total = 0
        for _, type_ in self.workgroup_vars:
            nbytes = self._type_bytes(type_, overrides)
            if nbytes is None:
                return None
            total += -(-nbytes // 16) * 16
        return total

    def _type_bytes(self, type_: str, overrides: Mapping[str, Number]) -> int | None:
        type_ = _long_vector(type_)
        if type_ in _SCALAR_BYTES:
            return _SCALAR_BYTES[type_]
        if match := re.fullmatch(r"atomic<(\w+)>", type_):
            return _SCALAR_BYTES.get(match[1])
        if match := re.fullmatch(r"vec([234])<(\w+)>", type_):
            scalar = _SCALAR_BYTES.get(match[2])
            return None if scalar is None else scalar * (4 if match[1] == "3" else int(match[1]))
        if match := re.fullmatch(r"array<(.+),([^,<>]+)>", type_):
            element = self._type_bytes(match[1], overrides)
            return None if element is None else element * self._evaluate(match[2], overrides)
        return None

    def _evaluate(self, expression: str, overrides: Mapping[str, Number]) -> int:
        names: dict[str, str | Number] = dict(self.constants)
        names.update({n: o.default for n, o in self.overrides.items() if o.default is not None})
        names.update(overrides)
        try:
            return _evaluate(expression, names)
        except (KeyError, ValueError, SyntaxError, ZeroDivisionError, RecursionError) as exc:
            raise KernelError(f"kernel {self.name!r}: cannot evaluate {expression!r} as a size") from exc

    def check_names(self, kind: str, have: set[str], given: Mapping[str, Any]) -> None:
        """Raises KernelError unless ``given`` has exactly the names that the kernel declares."""
        missing, extra = sorted(have - set(given)), sorted(set(given) - have)
        if missing or extra:
            raise KernelError(_names_message(self.name, kind, missing, extra))


def parse(name: str, code: str) -> KernelSource:
    """The declaration of a rendered kernel.  Raises KernelError for what a kernel may not contain."""
    text = strip_comments(code)
    constants = dict(re.findall(r"\bconst\s+(\w+)\s*(?::\s*\w+\s*)?=\s*([^;]+);", _module_scope(text)))
    params, params_size = _params(name, text, constants)
    source = KernelSource(
        name=name,
        code=code,
        bindings=_bindings(name, text),
        params=params,
        params_size=params_size,
        overrides={o.name: o for o in _overrides(name, text)},
        constants=constants,
        workgroup_size=_entry_point(name, text),
        workgroup_vars=tuple(
            (m[1], "".join(m[2].split())) for m in re.finditer(r"var\s*<\s*workgroup\s*>\s*(\w+)\s*:\s*([^;=]+);", text)
        ),
        checks=_checks(code),
    )
    uses_params = any(b.name == "params" and b.access == "uniform" for b in source.bindings)
    if uses_params != bool(params):
        raise KernelError(f"kernel {name!r}: `struct Params` and `var<uniform> params: Params` go together")
    return source


_OUTSIDE, _INSIDE = re.compile(r"//|/\*"), re.compile(r"/\*|\*/")  # what begins or ends a comment there


def strip_comments(code: str) -> str:
    """The code without comments; block comments nest in WGSL."""
    out: list[str] = []
    depth = at = 0
    while mark := (_INSIDE if depth else _OUTSIDE).search(code, at):
        if not depth:
            out.append(code[at : mark.start()])
        at = mark.end()
        if mark[0] == "//":
            end = code.find("\n", at)
            at = len(code) if end < 0 else end
        elif mark[0] == "/*":
            depth += 1
        else:
            depth -= 1
            out.append("" if depth else " ")
    if not depth:
        out.append(code[at:])
    return "".join(out)


def _checks(code: str) -> str:
    """What a line `// Unchecked: why` or `// Loops end: why` of a kernel leaves of the engine's checks."""
    found = re.search(r"^// (Unchecked|Loops end): ", code, re.MULTILINE)
    return "all" if found is None else {"Unchecked": "none", "Loops end": "bounds"}[found[1]]


def _names_message(kernel: str, kind: str, missing: Sequence[str], extra: Sequence[str]) -> str:
    parts = []
    if missing:
        parts.append(f"{kind} {', '.join(missing)} missing")
    if extra:
        parts.append(f"{kind} {', '.join(extra)} not declared")
    return f"kernel {kernel!r}: {'; '.join(parts)}"


def _module_scope(text: str) -> str:
    """The text outside of braces, where module-scope declarations are."""
    out, depth = [], 0
    for part in re.split("([{}])", text):
        depth -= part == "}"
        if not depth:
            out.append(part)
        depth += part == "{"
    return "".join(out)


def _bindings(name: str, text: str) -> tuple[Binding, ...]:
    pattern = re.compile(
        r"((?:@\w+\s*\(\s*\w+\s*\)\s*)+)var\s*<\s*(uniform|storage)\s*(?:,\s*(\w+)\s*)?>\s*(\w+)\s*:\s*([^;]+);"
    )
    found = []
    for attributes, space, access, variable, type_ in pattern.findall(text):
        numbers = dict(re.findall(r"@(\w+)\s*\(\s*(\d+)u?\s*\)", attributes))
        if numbers.get("group") != "0" or "binding" not in numbers:
            raise KernelError(f"kernel {name!r}: binding {variable!r} must have @group(0) and a number")
        if access not in ("", "read", "read_write"):
            raise KernelError(f"kernel {name!r}: binding {variable!r} has access {access!r}")
        kind = "uniform" if space == "uniform" else access or "read"
        found.append(Binding(int(numbers["binding"]), variable, kind, " ".join(type_.split())))
    declared = len(re.findall(r"@binding\b", text))
    if len(found) != declared:
        raise KernelError(f"kernel {name!r}: {declared - len(found)} bindings are not plain buffers")
    found.sort(key=lambda b: b.index)
    if len({b.index for b in found}) != len(found) or len({b.name for b in found}) != len(found):
        raise KernelError(f"kernel {name!r}: a binding number or name is used twice")
    return tuple(found)


def _overrides(name: str, text: str) -> Iterator[Override]:
    pattern = re.compile(r"(?:@id\s*\(\s*(\d+)\s*\)\s*)?\boverride\s+(\w+)\s*(?::\s*(\w+)\s*)?(?:=\s*([^;]+))?;")
    for number, variable, type_, default in pattern.findall(text):
        if not type_:
            raise KernelError(f"kernel {name!r}: override {variable!r} must state its type")
        yield Override(variable, type_, default.strip() or None, number or None)


def _entry_point(name: str, text: str) -> tuple[str, str, str]:
    entries = re.findall(r"@compute\b", text)
    sizes = re.findall(r"@workgroup_size\s*\(([^)]*)\)", text)
    if len(entries) != 1 or len(sizes) != 1 or not re.search(r"\bfn\s+main\s*\(", text):
        raise KernelError(f"kernel {name!r} must have one @compute entry point, `main`, with a workgroup size")
    parts = [p.strip() for p in sizes[0].split(",") if p.strip()]
    x, y, z = (*parts, "1", "1")[:3]
    return x, y, z


def _params(name: str, text: str, constants: Mapping[str, str]) -> tuple[tuple[ParamField, ...], int]:
    body = re.search(r"\bstruct\s+Params\s*\{([^}]*)\}", text)
    if body is None:
        return (), 0
    fields, end = [], 0
    for declaration in re.split(r",(?![^<]*>)", body[1]):
        if not declaration.strip():
            continue
        member = re.fullmatch(r"\s*(\w+)\s*:\s*(.+?)\s*", declaration, re.DOTALL)
        try:
            if member is None:
                raise ValueError
            type_ = _canonical(member[2], constants)
            scalar, count, align, size = _layout(type_, constants)
        except (ValueError, KeyError, SyntaxError) as exc:
            raise KernelError(
                f"kernel {name!r}: `{' '.join(declaration.split())}` in Params must be u32, i32, f32, a "
                f"vector of these, or array<vec4<T>, N>"
            ) from exc
        end = -(-end // align) * align
        fields.append(ParamField(member[1], type_, end, scalar, count))
        end += size
    return tuple(fields), -(-end // 16) * 16


def _long_vector(type_: str) -> str:
    """``vec4f`` as ``vec4<f32>``, without white space."""
    compact = "".join(type_.split())
    return re.sub(r"\bvec([234])([uifh])\b", lambda m: f"vec{m[1]}<{_SHORT_VECTORS[m[2]]}>", compact)


def _canonical(type_: str, constants: Mapping[str, str]) -> str:
    """The type with long vector names, and array lengths as numbers."""
    type_ = _long_vector(type_)
    if array := re.fullmatch(r"array<(vec4<\w+>),([^,]+?),?>", type_):
        return f"array<{array[1]},{_evaluate(array[2], constants)}>"
    return type_


def _layout(type_: str, constants: Mapping[str, str]) -> tuple[str, int, int, int]:
    """(scalar, how many, alignment, bytes) of a Params member in the uniform address space.

    A vec3 is aligned like a vec4 but 12 bytes long; arrays of vec4<T> have a stride of 16, so no gaps.
    """
    if type_ in _SCALARS:
        return type_, 1, 4, 4
    if vector := re.fullmatch(r"vec([234])<(u32|i32|f32)>", type_):
        n = int(vector[1])
        return vector[2], n, 8 if n == 2 else 16, 4 * n
    if array := re.fullmatch(r"array<vec4<(u32|i32|f32)>,(\d+)>", type_):
        n = int(array[2])
        return array[1], 4 * n, 16, 16 * n
    raise ValueError(type_)


def _flatten(value: Any) -> Iterator[Any]:
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        for item in value:
            yield from _flatten(item)
    else:
        yield value


_OPERATORS: Mapping[type[ast.operator], Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.floordiv,  # WGSL integer division truncates; sizes are positive
    ast.Mod: operator.mod,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
}


def _evaluate(expression: str | Number, names: Mapping[str, Any]) -> int:
    """An integer expression of WGSL over ``names``, whose values may be expressions themselves."""
    if not isinstance(expression, str):
        return int(expression)
    expression = re.sub(r"\b(\d+|0x[0-9a-fA-F]+)[ui]\b", r"\1", expression.strip())
    expression = re.sub(r"\b[ui]32\s*\(", "(", expression)

    def visit(node: ast.expr) -> int:
        match node:
            case ast.Constant(value=int() as value):
                return value
            case ast.Name(id=name):
                return _evaluate(names[name], names)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return int(_OPERATORS[type(op)](visit(left), visit(right)))
        raise ValueError(expression)

    return visit(ast.parse(expression, mode="eval").body)
