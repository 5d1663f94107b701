"""Clients that are slow, vanish, pipeline, speak no HTTP, or are too many, over real connections."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp

from executorch_webgpu.serve.auth import ApiKeys
from executorch_webgpu.serve.connections import ROOM_TO_REFUSE, allow_open_files
from executorch_webgpu.serve.limits import Limits
from executorch_webgpu.serve.metrics import Metrics
from executorch_webgpu.serve.middleware import middlewares
from executorch_webgpu.serve.shutdown import Draining

from .asgi_calls import Never, Stream, echo
from .loopback import Running, answer_of, error_of, read_all, serving, wait_until

POST = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
WHOLE = POST + b"Content-Length: 2\r\n\r\n{}"


@contextmanager
def guarded(app: ASGIApp, limits: Limits | None = None, keys: ApiKeys | None = None) -> Iterator[Running]:
    """An application behind all of the server's middlewares and its connections."""
    limits, metrics, draining = limits or Limits(), Metrics(), Draining(grace_seconds=0)
    stack = middlewares(limits, metrics, draining, keys or ApiKeys())
    with serving(Starlette(routes=[Mount("/", app=app)], middleware=stack), limits, metrics, draining) as server:
        yield server


def exchange(server: Running, data: bytes) -> tuple[int, dict[str, str], bytes]:
    with server.connect() as client:
        client.sendall(data)
        return answer_of(read_all(client))


def still_answers(server: Running) -> None:
    close = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert exchange(server, close)[0] == 200


@pytest.mark.parametrize("head", [b"", b"POST", b"POST /v1/compl", POST, POST + b"Content-Le"])
def test_a_head_that_does_not_come_ends_the_connection(head: bytes) -> None:
    with guarded(echo, Limits(head_seconds=0.1)) as server, server.connect() as client:
        client.sendall(head)
        data = read_all(client)
        if head:
            status, headers, body = answer_of(data)
            assert (status, headers["connection"]) == (408, "close")
            assert error_of(body)["code"] == "head_timeout"
        else:
            assert data == b""
        still_answers(server)


def test_a_head_that_comes_byte_by_byte_gets_no_more_time() -> None:
    with guarded(echo, Limits(head_seconds=0.2)) as server, server.connect() as client:
        client.settimeout(0.02)
        data = b""
        for byte in POST * 20:
            try:
                client.sendall(bytes([byte]))
                data += client.recv(4096)
            except TimeoutError:
                continue
            break
        assert answer_of(data)[0] == 408


@pytest.mark.parametrize(
    "rest", [b"Content-Length: 100\r\n\r\nbegin", b"Transfer-Encoding: chunked\r\n\r\n5\r\nbegin\r\n"]
)
def test_a_body_that_does_not_come_is_a_408(rest: bytes) -> None:
    with guarded(echo, Limits(body_seconds=0.1)) as server:
        status, _, body = exchange(server, POST + rest)
        assert status == 408 and error_of(body)["code"] == "body_timeout"
        still_answers(server)


def test_a_body_that_is_too_large_is_a_413_whatever_its_client_does() -> None:
    limits = Limits(max_body_bytes=1000, body_seconds=5)
    with guarded(echo, limits) as server:
        for rest in (b"Content-Length: 3000000\r\n\r\n" + b"x" * 3_000_000, b"Content-Length: 99999\r\n\r\n"):
            status, headers, body = exchange(server, POST + rest)
            assert (status, headers["connection"]) == (413, "close")
            assert error_of(body)["code"] == "body_too_large"
        chunk = b"%x\r\n%s\r\n" % (900_000, b"x" * 900_000)
        assert exchange(server, POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 3 + b"0\r\n\r\n")[0] == 413
        expect = b"Content-Length: 99999\r\nExpect: 100-continue\r\n\r\n"
        assert exchange(server, POST + expect)[0] == 413
        still_answers(server)


def test_a_body_that_is_endless_ends() -> None:
    """What is read before an answer, and after one, is bounded too."""
    limits = Limits(max_body_bytes=1000, body_seconds=0.2)
    with guarded(echo, limits, ApiKeys(["key"])) as server, server.connect() as client:
        client.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        with pytest.raises(OSError):  # the server answers 401, and hangs up at last
            while True:
                client.sendall(b"%x\r\n%s\r\n" % (1000, b"x" * 1000))
        wait_until(lambda: not server.server.server_state.connections)


def test_a_head_that_is_too_large_is_a_431() -> None:
    with guarded(echo) as server:
        for data in (POST + b"X: " + b"x" * 200_000, POST + b"X: y\r\n" * 30_000, b"GET /" + b"x" * 200_000):
            status, _, body = exchange(server, data)
            assert status == 431 and error_of(body)["code"] == "head_too_large"
        still_answers(server)


@pytest.mark.parametrize(
    "data",
    [
        *(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"hello\r\n\r\n", b"\x00" * 100, b"GET\r\n\r\n"),
        *(b"GET / HTTP/9.9\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        *(b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", POST + b"Content-Length: -1\r\n\r\n"),
        *(POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}", POST + b"no colon\r\n\r\n"),
        POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_bytes_that_are_no_http_are_a_400(data: bytes) -> None:
    with guarded(echo) as server:
        with server.connect() as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            answer = read_all(client)
        # A client that ends its side is gone to the server, which need not answer; what it says must be proper.
        if answer:
            status, _, body = answer_of(answer)
            assert 400 <= status < 500
            error_of(body)
        still_answers(server)


def test_a_reader_that_stops_is_dropped_and_its_request_cancelled() -> None:
    stream = Stream(event=b"data: " + b"x" * 4000 + b"\n\n")
    with guarded(stream, Limits(write_seconds=0.3)) as server, server.connect(receive_buffer=4096) as client:
        client.sendall(WHOLE)
        wait_until(lambda: stream.cancelled == 1)
        assert server.metric("connections_dropped_total", reason="slow_reader") == 1
        wait_until(lambda: not server.server.server_state.connections)
        # What fitted in the buffers is all that was ever made.
        assert stream.sent * len(stream.event) < 4 * 2**20


def test_a_reader_that_only_takes_its_time_is_not_dropped() -> None:
    stream = Stream(event=b"data: " + b"x" * 4000 + b"\n\n", count=250)
    with guarded(stream, Limits(write_seconds=0.6)) as server, server.connect(receive_buffer=4096) as client:
        client.sendall(WHOLE.replace(b"localhost", b"localhost\r\nConnection: close"))
        parts = []
        while part := client.recv(16 * 1024):
            parts.append(part)
            time.sleep(0.01)  # all of it takes longer than the limit, no part of it does
    assert stream.cancelled == 0
    assert b"".join(parts).endswith(b"0\r\n\r\n")


def test_an_answer_that_is_never_read_does_not_keep_its_connection() -> None:
    """It is complete and closed, and yet waits in the buffers."""

    limits = Limits(write_seconds=0.2, send_buffer_bytes=4096, max_body_bytes=2**20)
    with guarded(echo, limits) as server, server.connect(receive_buffer=4096) as client:
        size = 14_000  # the writer is never paused: less than its buffer
        client.sendall(POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
        wait_until(lambda: not server.server.server_state.connections)


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("pipelined", [1, 3])
def test_a_client_that_vanishes_cancels_its_request(reset: bool, pipelined: int) -> None:
    stream = Stream(pause=0.01)
    with guarded(stream) as server:
        client = server.connect()
        client.sendall(WHOLE * pipelined)
        assert client.recv(4096)
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        client.close()
        wait_until(lambda: stream.running == 0 and not server.server.server_state.tasks)
        assert stream.cancelled == 1  # those behind it in the pipeline never began
        assert server.metric("requests_cancelled_total") == 1
        assert not server.server.server_state.connections


def test_the_kernel_looks_after_clients_that_go_without_a_word() -> None:
    with guarded(echo, Limits(write_seconds=7.5)) as server, server.connect():
        wait_until(lambda: len(server.server.server_state.connections) == 1)
        (connection,) = server.server.server_state.connections
        connected = connection.transport.get_extra_info("socket")
        assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 8000
            assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 8


def test_a_request_that_waits_in_the_queue_vanishes_with_its_client() -> None:
    never = Never()
    with guarded(never, Limits(max_running=1)) as server:
        running = server.connect()
        running.sendall(WHOLE)
        wait_until(lambda: never.begun == 1)
        waiting = server.connect()
        waiting.sendall(WHOLE)
        wait_until(lambda: server.metric("requests_waiting") == 1)
        waiting.close()
        wait_until(lambda: server.metric("requests_waiting") == 0)
        running.close()
        wait_until(lambda: never.cancelled == 1)
        assert never.begun == 1


def test_pipelined_requests_are_answered_in_their_order() -> None:
    bodies = [json.dumps({"n": n}).encode() for n in range(20)]
    requests = [POST + b"Content-Length: %d\r\n\r\n" % len(body) + body for body in bodies]
    last = requests.pop().replace(b"localhost", b"localhost\r\nConnection: close")
    with guarded(echo) as server, server.connect() as client:
        client.sendall(b"".join([*requests, last]))
        data = read_all(client)
    assert [line for line in data.split(b"\r\n") if line.startswith(b"{")] == bodies


def test_line_ends_behind_a_body_do_not_end_its_request() -> None:
    stream = Stream(pause=0.01, count=40)
    with guarded(stream, Limits(head_seconds=0.1)) as server, server.connect() as client:
        client.sendall(WHOLE + b"\r\n")
        data = b""
        while b"0\r\n\r\n" not in data:
            data += client.recv(4096)
        assert data.count(stream.event) == 40


def test_bytes_that_are_no_http_behind_a_request_do_not_get_into_its_answer() -> None:
    stream = Stream(pause=0.01)
    with guarded(stream) as server, server.connect() as client:
        client.sendall(WHOLE)
        data = client.recv(4096)
        client.sendall(b"\x00\x00\r\n\r\n")
        data += read_all(client)
        assert data.count(b"HTTP/1.1 ") == 1
        wait_until(lambda: stream.cancelled == 1)
        with server.connect() as other:
            other.sendall(WHOLE)
            assert other.recv(4096).startswith(b"HTTP/1.1 200 ")


def test_connections_above_the_bound_are_told_and_those_far_above_are_closed() -> None:
    get = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
    limits = Limits(max_connections=8)
    with guarded(echo, limits) as server, ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(8)]
        wait_until(lambda: server.metric("connections") == 8)
        status, headers, body = exchange(server, get)
        assert status == 503 and headers["retry-after"]
        assert error_of(body)["code"] == "too_many_connections"
        clients += [stack.enter_context(server.connect()) for _ in range(ROOM_TO_REFUSE)]
        wait_until(lambda: server.metric("connections") == 8 + ROOM_TO_REFUSE)
        with server.connect() as client:
            assert read_all(client) == b""
        for client in clients:
            client.close()
        wait_until(lambda: server.metric("connections") == 0)
        still_answers(server)


def test_open_files_are_allowed_for_as_many_connections() -> None:
    import resource  # not on Windows

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        assert allow_open_files(50) == 50
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if hard != resource.RLIM_INFINITY:
            assert allow_open_files(hard + 1) < hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
