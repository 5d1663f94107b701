"""Messages between the two processes of a server, in both directions, many in one write."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from typing import Any


class Link:
    """Sends and receives pickled objects over a connection, each way in a thread of its own.

    ``send`` never waits. What gathers while a write is under way goes into the next one. ``receive`` is called with
    the objects of one write, in the reading thread; ``ended`` once, when the other side is gone.
    """

    def __init__(
        self, connection: Connection, receive: Callable[[list[Any]], None], ended: Callable[[], None] = lambda: None
    ) -> None:
        self._connection, self._receive, self._ended = connection, receive, ended
        self._outgoing: SimpleQueue[Any] = SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="link writer", daemon=True)
        self._reader = threading.Thread(target=self._read, name="link reader", daemon=True)
        self._writer.start()
        self._reader.start()

    def send(self, message: Any) -> None:
        """Send an object. Does nothing once the other side is gone."""
        self._outgoing.put(message)

    def close(self) -> None:
        """Write what is left, and say that no more comes: the other side ends, and with it the connection.

        It is not closed here: a thread that reads from it would not notice, and hold it open.
        """
        self._outgoing.put(_END)
        self._writer.join(timeout=5)

    def _write(self) -> None:
        with suppress(OSError):
            while True:
                messages = [self._outgoing.get()]
                with suppress(Empty):
                    while True:
                        messages.append(self._outgoing.get_nowait())
                last = _END in messages
                if content := [message for message in messages if message is not _END]:
                    self._connection.send_bytes(pickle.dumps(content, protocol=pickle.HIGHEST_PROTOCOL))
                if last:
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


_GOODBYE = b"goodbye"  # no pickle begins like this


class _End:
    """Marks the last message of a link."""


_END = _End()
