"""Messages between the two processes of a server, in both directions, many in one write."""

from __future__ import annotations

import pickle
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any


class Link:
    """Sends and receives pickled objects over a connection, each way in a thread of its own.

    ``send`` never waits. What gathers until the writer looks goes into one write, and wakes it once: who sends tokens
    also encodes steps. ``receive`` is called with the objects of one write, in the reading thread; ``ended`` once, when
    the other side is gone.
    """

    def __init__(
        self, connection: Connection, receive: Callable[[list[Any]], None], ended: Callable[[], None] = lambda: None
    ) -> None:
        self._connection, self._receive, self._ended = connection, receive, ended
        self._outgoing: deque[Any] = deque()
        self._woken, self._closing = False, False
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="link writer", daemon=True)
        self._reader = threading.Thread(target=self._read, name="link reader", daemon=True)
        self._writer.start()
        self._reader.start()

    def send(self, message: Any) -> None:
        """Send an object. Does nothing once the other side is gone."""
        self._outgoing.append(message)
        if not self._woken:  # else the writer has yet to look
            self._woken = True
            self._wake.put(None)

    def close(self) -> None:
        """Write what is left, and say that no more comes: the other side ends, and with it the connection.

        It is not closed here: a thread that reads from it would not notice, and hold it open.
        """
        self._closing = True
        self._wake.put(None)
        self._writer.join(timeout=5)

    def _write(self) -> None:
        with suppress(OSError):
            while True:
                self._wake.get()
                self._woken = False
                closing = self._closing
                messages: list[Any] = []
                with suppress(IndexError):
                    while True:
                        messages.append(self._outgoing.popleft())
                if messages:
                    self._connection.send_bytes(pickle.dumps(messages, protocol=pickle.HIGHEST_PROTOCOL))
                if closing:
                    self._connection.send_bytes(b"")
                    return

    def _read(self) -> None:
        try:
            while content := self._connection.recv_bytes():
                self._receive(pickle.loads(content))
        except (EOFError, OSError):
            pass
        finally:
            self._connection.close()
            self._ended()
