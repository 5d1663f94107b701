"""Messages between the two processes of a server, in both directions, many in one write.

A frame is its length in bytes, eight of them, and a pickled list of messages. A frame without content says that no more
come. Both ends are of one socket pair, which nobody else can open.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, cast

_READ = 1 << 18  # bytes at a time
BYE = bytes(8)

Receive = Callable[[list[Any]], None]

logger = logging.getLogger(__name__)


def frame(messages: list[Any]) -> bytes:
    """The bytes that carry messages. Raises what pickling raises."""
    content = pickle.dumps(messages, protocol=pickle.HIGHEST_PROTOCOL)
    return len(content).to_bytes(8, "little") + content


class Frames:
    """Cuts what arrives into frames. ``ended``: the other side has said that no more come."""

    def __init__(self) -> None:
        self.ended = False
        self._held = bytearray()

    def push(self, data: bytes) -> Iterator[list[Any]]:
        """The messages of each frame that is whole now."""
        self._held += data
        place = 0
        while not self.ended and len(self._held) >= place + 8:
            length = int.from_bytes(self._held[place : place + 8], "little")
            if len(self._held) < place + 8 + length:
                break
            content = bytes(self._held[place + 8 : place + 8 + length])
            place += 8 + length
            if length:
                yield pickle.loads(content)
            else:
                self.ended = True
        del self._held[:place]


class Link:
    """One end, in threads: one for each way.

    ``send`` never waits. What gathers until the writer looks goes into one write, and wakes it once: who sends tokens
    also encodes steps. ``receive`` is called with the messages of one frame, in the reading thread; ``ended`` once,
    when the other side is gone, or what it was sent, or has sent, cannot be read.
    """

    def __init__(self, connected: socket.socket, receive: Receive, ended: Callable[[], None] = lambda: None) -> None:
        self._socket, self._receive, self._ended = connected, receive, ended
        self._outgoing: deque[Any] = deque()
        self._woken = False
        self._wake: SimpleQueue[None] = SimpleQueue()
        for work in (self._write, self._read):
            threading.Thread(target=work, name=f"link {work.__name__.strip('_')}", daemon=True).start()

    def send(self, message: Any) -> None:
        """Send a message. Does nothing once the other side is gone."""
        self._outgoing.append(message)
        if not self._woken:  # else the writer has yet to look
            self._woken = True
            self._wake.put(None)

    def _write(self) -> None:
        try:
            while True:
                self._wake.get()
                self._woken = False
                messages: list[Any] = []
                with suppress(IndexError):
                    while True:
                        messages.append(self._outgoing.popleft())
                if messages:
                    self._socket.sendall(frame(messages))
        except OSError:
            pass
        except Exception:  # of pickle: who waits for that message would wait for ever
            logger.exception("a message for the other process cannot be sent")
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # which the reader notices

    def _read(self) -> None:
        frames = Frames()
        try:
            while not frames.ended and (data := self._socket.recv(_READ)):
                for messages in frames.push(data):
                    self._receive(messages)
        except OSError:
            pass
        finally:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._ended()


class LoopLink(asyncio.Protocol):
    """One end, in an event loop: no thread stands between a message and who waits for it.

    ``receive`` and ``ended`` are called as a ``Link``'s, in the loop. ``send`` never waits.
    """

    def __init__(self, receive: Receive, ended: Callable[[], None] = lambda: None) -> None:
        self._receive, self._ended = receive, ended
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def open(cls, connected: socket.socket, receive: Receive, ended: Callable[[], None]) -> LoopLink:
        """The link over a socket, which is closed with it."""
        loop = asyncio.get_running_loop()
        _, link = await loop.create_connection(lambda: cls(receive, ended), sock=connected)
        return link

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it

    def data_received(self, data: bytes) -> None:
        for messages in self._frames.push(data):
            self._receive(messages)
        if self._frames.ended and self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._ended()

    def send(self, message: Any) -> None:
        """Send a message. Does nothing once the other side is gone. Raises what pickling raises."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame([message]))

    def close(self) -> None:
        """Say that no more comes, behind what is not written yet: the other side ends, and with it the connection."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(BYE)

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()


# -- a process that has the other end -------------------------------------------------------------------------------


def start_linked(command: Sequence[str]) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start a process whose last argument tells ``inherited`` its end of a socket pair; returns it, and this end."""
    ours, theirs = socket.socketpair()
    try:
        if sys.platform == "win32":  # sockets are not inherited there, but handed over
            process = subprocess.Popen([*command, "-"], stdin=subprocess.PIPE)
            assert process.stdin is not None
            with process.stdin as pipe:
                pipe.write(theirs.share(process.pid))
        else:
            number = theirs.fileno()
            process = subprocess.Popen([*command, str(number)], stdin=subprocess.DEVNULL, pass_fds=[number])
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()  # so that the process has the only one, and its end is the connection's
    return process, ours


def inherited(argument: str) -> socket.socket:
    """This process's end. ``argument``: the last one of its command."""
    if sys.platform == "win32":
        return socket.fromshare(sys.stdin.buffer.read())
    return socket.socket(fileno=int(argument))


def receive_one(connected: socket.socket) -> Any:
    """The first message, before there is a ``Link``. Raises EOFError if the other side ends before it."""
    received = bytearray()
    wanted = 8
    while len(received) < wanted:
        data = connected.recv(wanted - len(received))
        if not data:
            raise EOFError("the other process has ended")
        received += data
        if len(received) == 8:
            wanted += int.from_bytes(received, "little")
    (message,) = pickle.loads(received[8:])
    return message
