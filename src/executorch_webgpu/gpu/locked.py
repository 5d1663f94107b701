"""One thread at a time in the methods of an object."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from threading import RLock
from typing import Concatenate, ParamSpec, Protocol, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class HasLock(Protocol):
    """An object with the lock that its methods take."""

    @property
    def _lock(self) -> RLock: ...


Owner = TypeVar("Owner", bound=HasLock)


def locked(
    method: Callable[Concatenate[Owner, Arguments], Result],
) -> Callable[Concatenate[Owner, Arguments], Result]:
    """A method that holds ``self._lock``, which is re-entrant, while it runs; others wait."""

    @wraps(method)
    def call(self: Owner, /, *args: Arguments.args, **options: Arguments.kwargs) -> Result:
        with self._lock:
            return method(self, *args, **options)

    return call
