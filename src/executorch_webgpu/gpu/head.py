"""The head of a WGSL file: a Jinja comment that says what the file is for and names every template input.

    {#
    out = softmax(x) over rows of ``width`` elements. One workgroup computes a row.

    Inputs:
      log = False | True: whether the logarithm of the result is wanted
      rows = 4 | 8: rows that an invocation computes
    #}

An input begins two spaces in, with sample values as Python literals between bars; the first ones make the kernel that
is shown when nothing else is asked for. Its meaning may go on in lines that are indented further.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from ..errors import KernelError

_HEAD = re.compile(r"\s*\{#-?(.*?)-?#\}", re.DOTALL)
_INPUT = re.compile(r"^  (\w+) = (.*(?:\n {3,}.*)*)", re.MULTILINE)


@dataclass(frozen=True)
class TemplateInput:
    """A value that the template of a kernel takes; ``samples`` are some of those that it may have."""

    name: str
    samples: tuple[object, ...]
    meaning: str


@dataclass(frozen=True)
class Head:
    """What a kernel or a library is for, and its template inputs."""

    purpose: str
    inputs: tuple[TemplateInput, ...]

    @property
    def summary(self) -> str:
        """The first sentence."""
        return re.split(r"(?<=\.)\s", self.purpose, maxsplit=1)[0]

    @property
    def sample(self) -> dict[str, object]:
        """Template values of one variant."""
        return {each.name: each.samples[0] for each in self.inputs}

    def check(self, kernel: str, given: Iterable[str]) -> None:
        """Raises KernelError unless ``given`` names exactly the inputs."""
        known, names = {each.name for each in self.inputs}, set(given)
        if missing := sorted(known - names):
            raise KernelError(f"kernel {kernel!r} needs the template inputs {', '.join(missing)}")
        if extra := sorted(names - known):
            raise KernelError(f"kernel {kernel!r} has no template inputs {', '.join(extra)}")


@lru_cache(maxsize=256)
def read_head(name: str, text: str) -> Head:
    """The head that a file begins with; without one, it takes no inputs.

    Raises KernelError for an input that cannot be read.
    """
    found = _HEAD.match(text)
    if found is None:
        return Head("", ())
    purpose, _, inputs = found[1].partition("\nInputs:\n")
    read = tuple(_input(name, *match.groups()) for match in _INPUT.finditer(inputs))
    if rest := _INPUT.sub("", inputs).strip():
        raise KernelError(f"kernel {name!r}: its head has {rest.splitlines()[0]!r} among its inputs")
    return Head(" ".join(purpose.split()), read)


def _input(kernel: str, name: str, text: str) -> TemplateInput:
    text = re.sub(r"\s*\n\s*", " ", text)
    for colon in re.finditer(": ", text):  # a sample may hold colons, too
        try:
            samples = _samples(ast.parse(text[: colon.start()], mode="eval").body)
        except (SyntaxError, ValueError):
            continue
        return TemplateInput(name, samples, " ".join(text[colon.end() :].split()))
    raise KernelError(f"kernel {kernel!r}: its input {name!r} is not written as `{name} = sample | sample: meaning`")


def _samples(node: ast.expr) -> tuple[object, ...]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return (*_samples(node.left), *_samples(node.right))
    return (ast.literal_eval(node),)


def write_variant(template: Mapping[str, object]) -> str:
    """Template values as one line, which ``read_variant`` reads."""
    return " ".join(f"{name}={_written(value)}" for name, value in template.items())


def _written(value: object) -> str:
    plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z_]\w*", value) and value not in ("True", "False", "None")
    return str(value) if plain else repr(value)


def read_variant(text: str) -> dict[str, object]:
    """Template values from ``name=value name=value``; a value is a Python literal or a plain word.

    Raises ValueError for anything else.
    """
    values: dict[str, object] = {}
    rest = text.strip()
    while rest:
        name, equals, rest = rest.partition("=")
        if not (equals and name.isidentifier()):
            raise ValueError(f"{text!r} is not name=value, with spaces between such pairs")
        values[name], rest = _first_value(rest)
    return values


def _first_value(text: str) -> tuple[object, str]:
    """The value that a text begins with, and what comes after it and its space."""
    ends = [match.span() for match in re.finditer(r" +(?=\w+=)|$", text)]
    for end, rest in ends:
        try:
            return ast.literal_eval(text[:end]), text[rest:]
        except (SyntaxError, ValueError):
            continue
    return text[: ends[0][0]], text[ends[0][1] :]
