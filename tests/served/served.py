"""The real server as a process of its own, over a tiny program, and what its metrics say of leaks."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.serve.loopback import wait_until

HOST = b"Host: localhost\r\n"
# Each request has a connection of its own, so that those which are open are those of a test.
HTTP = httpx.Client(verify=False, timeout=60, limits=httpx.Limits(max_keepalive_connections=0))


@dataclass
class Served:
    """A server that runs, and the name of its model."""

    url: str
    model: str
    pid: int
    headers: dict[str, str]

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def post(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        """A request of its own connection. A ``body`` of bytes goes as it is, all others as JSON with the model."""
        if isinstance(body, bytes):
            headers = {"content-type": "application/json", **options.pop("headers", {})}
            return HTTP.post(self.url + path, content=body, headers=headers, **options)
        return HTTP.post(self.url + path, json={"model": self.model, **body}, **options)

    def text(self, prompt: str | list[int], max_tokens: int = 20, **fields: Any) -> str:
        answer = self.post("/v1/completions", {"prompt": prompt, "max_tokens": max_tokens, **fields})
        assert answer.status_code == 200, answer.text
        return answer.json()["choices"][0]["text"]

    def connect(self, receive_buffer: int | None = None) -> socket.socket:
        client = socket.socket()
        if receive_buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.settimeout(60)
        client.connect(("127.0.0.1", self.port))
        return client

    def request(self, path: str, body: dict[str, Any], close: bool = True) -> bytes:
        """The bytes of a POST."""
        content = json.dumps({"model": self.model, **body}).encode()
        head = f"POST {path} HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n".encode()
        return head + HOST + (b"Connection: close\r\n" if close else b"") + b"\r\n" + content

    def metrics(self) -> dict[str, float]:
        """Metrics without labels, by name."""
        families = text_string_to_metric_families(HTTP.get(f"{self.url}/metrics", headers=self.headers).text)
        found = [sample for family in families for sample in family.samples if not sample.labels]
        return {sample.name.removeprefix("etwebgpu_"): sample.value for sample in found}

    def files(self) -> int:
        """Open files of the server's processes, this one and those that it started."""
        return sum(_entries(pid, "fd") for pid in [self.pid, *children(self.pid)])

    def tasks(self) -> int:
        """Threads of those processes."""
        return sum(_entries(pid, "task") for pid in [self.pid, *children(self.pid)])

    def memory(self) -> int:
        """Bytes that those processes have in memory."""
        pids = [self.pid, *children(self.pid)]
        return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") for pid in pids)

    def at_rest(self) -> bool:
        """Whether nothing runs, waits, holds pages or is connected but the one who asks."""
        now = self.metrics()
        names = ("requests_running", "requests_waiting", "texts_running", "texts_waiting", "kv_cache_pages_used")
        return all(now[name] == 0 for name in names) and now["connections"] == 1 and now["engine_up"] == 1


def children(pid: int) -> list[int]:
    """Processes that a process started, and those that these did."""
    found = [
        int(text) for task in Path(f"/proc/{pid}/task").iterdir() for text in (task / "children").read_text().split()
    ]
    return found + [below for child in found for below in children(child)]


def _entries(pid: int, folder: str) -> int:
    return len(list(Path(f"/proc/{pid}/{folder}").iterdir()))


@contextmanager
def serve(source: Path, *options: str, headers: dict[str, str] | None = None) -> Iterator[Served]:
    """``et-webgpu serve`` on a free port, stopped by SIGTERM at the end, after which its status must be 0.

    ``headers``: of requests that need a key.
    """
    command = [sys.executable, "-m", "executorch_webgpu", "serve", str(source), "--port", "0", *options]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)

        def written() -> str:
            log.seek(0)
            return log.read()

        try:
            wait_until(lambda: process.poll() is not None or _address(written()) is not None, 120)
            url = _address(written())
            assert url is not None, written()
            wait_until(lambda: process.poll() is not None or HTTP.get(f"{url}/health").status_code == 200, 120)
            name = HTTP.get(f"{url}/v1/models", headers=headers).json()["data"][0]["id"]
            yield Served(url, name, process.pid, headers or {})
            process.terminate()
            assert process.wait(60) == 0, written()
            assert "Traceback" not in written() and '"exception"' not in written(), written()
        except BaseException:
            print(written()[-5000:])
            raise
        finally:
            process.kill()
            process.wait()


def _address(log: str) -> str | None:
    found = re.search(r"http://127\.0\.0\.1:\d+", log)
    return found[0] if found else None


class Witness:
    """A seeded stream that goes on while others do harm, and must be what it was alone."""

    def __init__(self, served: Served, prompt: str, max_tokens: int) -> None:
        self.served = served
        self.body = {"prompt": prompt, "max_tokens": max_tokens, "seed": 7, "temperature": 1.0, "stream": True}
        self.alone = self._read(lambda: None)

    def _read(self, begun: Callable[[], None]) -> str:
        parts = []
        body = {"model": self.served.model, **self.body}
        with HTTP.stream("POST", f"{self.served.url}/v1/completions", json=body) as answer:
            assert answer.status_code == 200
            for line in answer.iter_lines():
                begun()
                data = line.removeprefix("data: ")
                if line and data != "[DONE]":
                    parts += [choice["text"] for choice in json.loads(data)["choices"]]
        assert data == "[DONE]" or not line
        return "".join(parts)

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """The stream runs, again and again, while the block does; then the server is at rest as it was before."""
        served = self.served
        wait_until(served.at_rest)
        files = served.files()
        begun, over, texts = threading.Event(), threading.Event(), list[str]()

        def run() -> None:
            while not texts or not over.is_set():
                texts.append(self._read(begun.set))

        thread = threading.Thread(target=run)
        thread.start()
        assert begun.wait(60)
        try:
            yield
        finally:
            over.set()
            thread.join(120)
        assert set(texts) == {self.alone}
        wait_until(served.at_rest, 60)
        wait_until(lambda: served.files() <= files, 60)


def read_events(client: socket.socket, count: int) -> bytes:
    """Bytes of a stream until so many events have come."""
    data = b""
    while data.count(b"data: ") < count:
        part = client.recv(4096)
        assert part, data
        data += part
    return data
