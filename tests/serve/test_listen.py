"""A server as a process of its own, which signals stop."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import asyncio, socket, sys
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route
from executorch_webgpu.serve.auth import ApiKeys
from executorch_webgpu.serve.limits import Limits
from executorch_webgpu.serve.listen import make_server
from executorch_webgpu.serve.metrics import Metrics
from executorch_webgpu.serve.middleware import middlewares
from executorch_webgpu.serve.shutdown import Draining

async def events(request):
    async def all_of_them():
        for n in range(int(request.query_params["count"])):
            yield f"data: {n}\\n\\n"
            await asyncio.sleep(0.02)
    return StreamingResponse(all_of_them(), media_type="text/event-stream")

limits, metrics, draining = Limits(), Metrics(), Draining(grace_seconds=60)
app = Starlette(routes=[Route("/v1/completions", events, methods=["POST"])],
                middleware=middlewares(limits, metrics, draining, ApiKeys()))
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
make_server(app, limits, metrics, draining, "json", lifespan="off").run(sockets=[listener])
"""


@contextmanager
def process() -> Iterator[tuple[subprocess.Popen[str], str]]:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=pipe, stderr=pipe, text=True) as server:
        try:
            assert server.stdout is not None
            yield server, f"http://127.0.0.1:{int(server.stdout.readline())}/v1/completions"
        finally:
            server.kill()


@pytest.mark.parametrize("signals", [1, 2])
def test_one_signal_lets_streams_finish_and_two_end_them(signals: int) -> None:
    with process() as (server, url):
        count = 30 if signals == 1 else 100_000
        with httpx.stream("POST", url, params={"count": count}, timeout=30) as answer:
            parts = answer.iter_text()
            text = next(parts)
            server.send_signal(signal.SIGTERM)
            while httpx.post(url, params={"count": 1}, timeout=30).status_code != 503:
                pass
            if signals == 2:
                server.send_signal(signal.SIGINT)
            text += "".join(parts)
        output, errors = server.communicate(timeout=30)
        events = [json.loads(line.removeprefix("data: ")) for line in text.split("\n\n") if line]
        if signals == 1:
            assert events == list(range(30))
        else:
            assert events[-1]["error"]["code"] == "shutting_down"
        assert (server.returncode, output) == (0, "")
        lines = [json.loads(line) for line in errors.splitlines()]
        outcomes = [line["outcome"] for line in lines if line["message"] == "request" and line["status"] == 200]
        assert outcomes[-1] == ("complete" if signals == 1 else "shutdown")
