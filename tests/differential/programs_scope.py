"""What a method has computed so far while it is drawn: each line runs at once, so that the next one fits it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from .programs_model import DYNAMIC_EXAMPLE, Line

Integer = Callable[[int, int], int]  # draws a number between two, both included
LARGEST = 1e4  # of floats, so that errors stay near the unit in the last place
ELEMENTS = 400


class Drawing:
    """Draws by one source of numbers: hypothesis, or a seeded generator."""

    def __init__(self, integer: Integer) -> None:
        self._integer = integer

    def integer(self, low: int, high: int) -> int:
        """A number, both ends included."""
        return self._integer(low, high) if low < high else low

    def one_of(self, choices: Sequence[Any]) -> Any:
        """One of several values; the first is the simplest."""
        return choices[self.integer(0, len(choices) - 1)]

    def chance(self, percent: int) -> bool:
        """True in so many of a hundred draws; False is the simplest."""
        return self.integer(0, 99) >= 100 - percent


class Scope(Drawing):
    """The values of a method by name, and how exact they are.

    ``exact`` names values that every arithmetic gives bit for bit; ``on_host`` those that float32 division, square
    roots and float64 give so as well, which a GPU does not.
    """

    def __init__(self, integer: Integer, module: Any, dynamic: bool, special: bool) -> None:
        super().__init__(integer)
        self.dynamic = dynamic
        self.special = special  # whether values may be infinite or NaN
        self.env: dict[str, Any] = {"self": module, "torch": torch}
        self.names: list[str] = []
        self.stored: list[str] = []
        self.inputs: list[str] = []
        self.inexact: set[str] = set()
        self.off_host: set[str] = set()
        self.lines: list[Line] = []
        self.written: set[str] = set()
        self.discontinuous = False
        self.host_only = False
        self._fresh = 0

    # -- values -----------------------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.env[name] if name in self.env else getattr(self.env["self"], name.removeprefix("self."))

    def tensors(self, fits: Callable[[torch.Tensor], bool] | None = None) -> list[str]:
        """Names of tensors, those of the module included."""
        return [
            n for n in [*self.names, *self.stored] if isinstance(self[n], torch.Tensor) and (not fits or fits(self[n]))
        ]

    def pick(self, fits: Callable[[torch.Tensor], bool] | None = None) -> str | None:
        """A tensor that fits, recent ones more often; None where there is none."""
        known = self.tensors(fits)
        if not known:
            return None
        if len(known) > 3 and self.chance(40):
            known = [n for n in known if n in self.names][-3:] or known
        return self.one_of(known)

    def size(self, n: int) -> str:
        """A size as source: a live one where it is that of the dynamic dim."""
        if not self.dynamic or n % DYNAMIC_EXAMPLE or not n:
            return str(n)
        live = f"{self.inputs[0]}.shape[0]"
        return live if n == DYNAMIC_EXAMPLE else f"{live} * {n // DYNAMIC_EXAMPLE}"

    def sizes(self, shape: Sequence[int]) -> str:
        return ", ".join(self.size(n) for n in shape)

    def is_exact(self, names: set[str]) -> bool:
        return not names & self.inexact

    # -- lines ------------------------------------------------------------------------------------------------------

    def assign(
        self, expression: str, count: int = 1, *, exact: bool = True, on_host: bool = True, step: bool = False
    ) -> list[str]:
        """Give new names the value of an expression; an empty list if torch or our own bounds refuse it.

        ``exact``, ``on_host``: see the class. ``step``: the result jumps where its arguments change a little.
        """
        targets = [f"v{self._fresh + i}" for i in range(count)]
        line = Line(f"{', '.join(targets)} = {expression}", tuple(targets))
        if not self._run(line, exact, on_host, step):
            return []
        self._fresh += count
        self.names += targets
        return targets

    def write(
        self, statement: str, destination: str, *, exact: bool = True, on_host: bool = True, step: bool = False
    ) -> bool:
        """Run a statement that writes a tensor, and all that share its memory."""
        return self._run(Line(statement), exact, on_host, step, destination)

    def _run(self, line: Line, exact: bool, on_host: bool, step: bool, destination: str | None = None) -> bool:
        reads = line.reads
        lossy = bool(reads & self.inexact)
        rough = bool(reads & self.off_host) or any(self._is_wide(n) for n in reads)
        if step and lossy:
            return False
        becomes_lossy = (lossy or not exact) and not step
        becomes_rough = (rough or not on_host) and not step
        touched = set(line.targets)
        if destination is not None:
            touched = self._sharing(destination)
            state = any(name.startswith("self.b") for name in touched)
            if state and (becomes_lossy or becomes_rough):
                return False  # the call before would have made this one inexact already
        memory = None if destination is None else self[destination].untyped_storage()
        before = None if memory is None else memory.clone()
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                exec(line.text, self.env)  # what the module's own method would run
        except Exception:  # whatever torch refuses is not a line that people have
            self._undo(line, memory, before)
            return False
        if not all(self._bounded(self.env[n] if n in self.env else self[n]) for n in touched):
            self._undo(line, memory, before)
            return False
        self.lines.append(line)
        if destination is not None:
            self.written |= touched & set(self.stored)
        self.host_only |= any(self._is_beyond_32_bits(n) for n in touched)
        if becomes_lossy:
            self.inexact |= touched
        if becomes_rough:
            self.off_host |= touched
        if step:
            self.discontinuous = True
            self.host_only |= rough
        return True

    def _undo(self, line: Line, memory: Any, before: Any) -> None:
        for name in line.targets:
            self.env.pop(name, None)
        if memory is not None:
            memory.copy_(before)

    def _sharing(self, name: str) -> set[str]:
        place = self[name].untyped_storage().data_ptr()
        found = {n for n in self.tensors() if self[n].untyped_storage().data_ptr() == place}
        return found | {name}

    def _is_wide(self, name: str) -> bool:
        try:
            value = self[name]
        except AttributeError:
            return False
        return isinstance(value, torch.Tensor) and value.dtype == torch.float64

    def _is_beyond_32_bits(self, name: str) -> bool:
        value = self[name]
        wide = isinstance(value, torch.Tensor) and value.dtype == torch.int64 and value.numel() > 0
        return wide and not -(2**31) <= int(value.min()) <= int(value.max()) < 2**31

    def _bounded(self, value: Any) -> bool:
        if not isinstance(value, torch.Tensor):
            return isinstance(value, bool | int | float)
        if value.numel() > ELEMENTS or value.dim() > 5 or value.is_complex():
            return False
        if value.dtype.is_floating_point and value.numel() and not self.special:
            return bool(torch.isfinite(value).all()) and float(value.abs().max()) <= LARGEST
        return True


def is_float(tensor: torch.Tensor) -> bool:
    return tensor.dtype.is_floating_point


def is_integer(tensor: torch.Tensor) -> bool:
    return not tensor.dtype.is_floating_point and tensor.dtype != torch.bool


def dtype_of(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
