"""A failing model made smaller: calls, outputs, lines, inputs and options go, one by one, while it still fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

from .programs_export import Flavour
from .programs_model import Model, Source, names_in

T = TypeVar("T")
Fails = Callable[[Model, Flavour], bool]


def shrink(model: Model, flavour: Flavour, fails: Fails, attempts: int = 40) -> tuple[Model, Flavour]:
    """The smallest model and options found that fail. ``fails`` is asked at most ``attempts`` times."""
    left = attempts
    progress = True
    while progress:
        progress = False
        for smaller in _smaller(model, flavour):
            if left == 0:
                return model, flavour
            left -= 1
            if fails(*smaller):
                model, flavour = smaller
                progress = True
                break
    return model, flavour


def _smaller(model: Model, flavour: Flavour) -> Iterator[tuple[Model, Flavour]]:
    for m, method in enumerate(model.methods):
        for value in method.returns if len(method.returns) > 1 else ():
            yield _tidied(_with_method(model, m, replace(method, returns=(value,)))), flavour
    for i in range(len(model.calls)):
        if len(model.calls) > 1:
            yield replace(model, calls=_without(model.calls, i)), flavour
    if len(model.methods) > 1:
        for i, method in enumerate(model.methods):
            calls = tuple(replace(call, method=0) for call in model.calls if call.method == i)
            if calls:
                yield replace(model, methods=(method,), calls=calls), flavour
    for m, method in enumerate(model.methods):
        for smaller in _smaller_methods(method):
            yield _tidied(_with_method(model, m, smaller)), flavour
    if flavour.blocked:
        yield model, replace(flavour, blocked=frozenset())
        for name in sorted(flavour.blocked):
            yield model, replace(flavour, blocked=flavour.blocked - {name})
    plain = Flavour(vulkan=flavour.vulkan)
    for name in Flavour.__dataclass_fields__:
        if name != "blocked" and getattr(flavour, name) != getattr(plain, name):
            yield model, replace(flavour, **{name: getattr(plain, name)})


def _with_method(model: Model, index: int, method: Source) -> Model:
    return replace(model, methods=(*model.methods[:index], method, *model.methods[index + 1 :]))


def _smaller_methods(method: Source) -> Iterator[Source]:
    for i in range(len(method.returns)):
        if len(method.returns) > 1:
            yield replace(method, returns=_without(method.returns, i))
    for i in reversed(range(len(method.lines))):
        if smaller := _without_line(method, i):
            yield smaller


def _without_line(method: Source, index: int) -> Source | None:
    """The method without a line and all that needs it; None if nothing would be left to return.

    Where all outputs needed it, what it read is returned.
    """
    known = {i.name for i in method.inputs}
    lines = []
    for line in _without(method.lines, index):
        if all(name in known or name.startswith("self.") for name in line.reads):
            lines.append(line)
            known |= set(line.targets)
    returns = tuple(r for r in method.returns if all(n in known or n.startswith("self.") for n in names_in(r)))
    returns = returns or tuple(sorted(n for n in method.lines[index].reads if n in known or n.startswith("self.")))
    return replace(method, lines=tuple(lines), returns=returns) if returns else None


def _tidied(model: Model) -> Model:
    """Without what no method reads: lines that write nothing, stored tensors, and inputs at the end."""
    methods = []
    for method in map(_without_unread, model.methods):
        read = set().union(*(names_in(line.text) for line in method.lines), *(names_in(r) for r in method.returns))
        inputs = list(method.inputs)
        while len(inputs) > 1 and inputs[-1].name not in read:
            inputs.pop()
        methods.append(replace(method, inputs=tuple(inputs)))
    text = "\n".join([line.text for m in methods for line in m.lines] + [r for m in methods for r in m.returns])
    kept = tuple(s for s in model.stored if f"self.{s.name}" in names_in(text))
    return replace(model, stored=kept, methods=tuple(methods))


def _without_unread(method: Source) -> Source:
    read = set().union(*(names_in(r) for r in method.returns))
    lines = []
    for line in reversed(method.lines):
        if not line.targets or read & set(line.targets):
            lines.append(line)
            read |= line.reads
    return replace(method, lines=tuple(reversed(lines)))


def _without(items: tuple[T, ...], index: int) -> tuple[T, ...]:
    return (*items[:index], *items[index + 1 :])
