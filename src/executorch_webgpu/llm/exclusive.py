"""What one thread may use at a time: a second one is refused at once, because waiting for a turn would spoil a text."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from threading import RLock, get_ident
from types import TracebackType
from typing import Any, Generic, TypeVar

from ..errors import ClosedError, InUseError

T = TypeVar("T")


class Exclusive:
    """A context manager that one thread can be in, any number of times; any other gets an InUseError meanwhile."""

    def __init__(self, message: str) -> None:
        self._message = message
        self._lock = RLock()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise InUseError(self._message)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def wait(self) -> RLock:
        """A context manager that waits for its turn."""
        return self._lock


class ExclusiveGenerator(Generator[T, None, None], Generic[T]):
    """A generator from which one thread at a time takes what comes next; another one gets an InUseError.

    Any thread may ``close`` it: that waits for an item that is being made, and ends the reader's loop. ``take_over`` is
    for those who end it in order to do something else: the reader, if that is another thread, gets a ClosedError
    instead of a shorter text.
    """

    def __init__(self, items: Generator[T], use: Exclusive) -> None:
        self._items = items
        self._use = use
        self._reader = get_ident()  # the thread that took the last item
        self._closed = self._taken_over = False

    def __iter__(self) -> Iterator[T]:  # type: ignore[override]
        return self

    def __next__(self) -> T:
        try:
            with self._use:
                self._check_open()
                self._reader = get_ident()
                return next(self._items)
        except InUseError:
            self._check_open()  # it may be in use by who closes it
            raise

    def send(self, value: Any) -> T:
        return next(self)

    def throw(self, *error: Any) -> T:
        with self._use:
            return self._items.throw(*error)

    def close(self) -> None:
        self._closed = True
        with self._use.wait():
            self._items.close()

    def take_over(self) -> None:
        self._taken_over = self._reader != get_ident()
        self.close()

    def _check_open(self) -> None:
        if self._taken_over:
            raise ClosedError(
                "this text was ended by another thread, which went on with the same sequence; give each thread one of "
                "its own with new_sequence()"
            )
        if self._closed:
            raise StopIteration
