"""Lines of the log, and ids of requests."""

from __future__ import annotations

import asyncio
import json
import logging
import logging.config
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import ASGIApp, Receive, Scope, Send

from executorch_webgpu.serve.access_log import JsonFormatter, RequestLog, TextFormatter, log_config
from executorch_webgpu.serve.errors import ApiError
from executorch_webgpu.serve.metrics import Metrics

from .asgi_calls import Exchange, Stream, client, echo
from .loopback import error_of

LOGGER = "executorch_webgpu.serve.access_log"


def ask(app: ASGIApp, path: str = "/v1/completions", **headers: str) -> httpx.Response:
    async def run() -> httpx.Response:
        async with client(RequestLog(app, Metrics())) as http:
            return await http.post(path, content=b"a prompt that is secret", headers=headers)

    return asyncio.run(run())


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [json.loads(JsonFormatter().format(record)) for record in caplog.records if record.name == LOGGER]


@pytest.fixture(autouse=True)
def level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)


def test_a_request_is_one_line_without_its_content(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        record = scope["state"]["record"]
        record.model, record.prompt_tokens, record.generated_tokens = "tiny", 5, 7
        await echo(scope, receive, send)

    answer = ask(app, "/v1/completions?prompt=secret", **{"x-request-id": "mine-1", "authorization": "Bearer secret"})
    (line,) = lines(caplog)
    assert answer.headers["x-request-id"] == line["request_id"] == "mine-1"
    assert line["duration_ms"] >= line["first_byte_ms"] >= 0
    expected = {
        **{"level": "info", "message": "request", "method": "POST", "route": "/v1/completions", "status": 200},
        **{"outcome": "complete", "model": "tiny", "prompt_tokens": 5, "generated_tokens": 7},
    }
    assert {name: line[name] for name in expected} == expected
    assert "cached_tokens" not in line
    assert "secret" not in json.dumps(line)


@pytest.mark.parametrize("given", ["", "with space", "a" * 129, "line\tend", 'quote"', "<b>", "é"])
def test_an_id_that_is_not_sane_is_replaced(given: str) -> None:
    async def run() -> str:
        async with client(RequestLog(echo, Metrics())) as http:
            answer = await http.get("/health", headers=[(b"x-request-id", given.encode("latin-1"))])
            return answer.headers["x-request-id"]

    made = asyncio.run(run())
    assert made != given and made.startswith("req_")


def test_ids_are_made_anew() -> None:
    assert ask(echo).headers["x-request-id"] != ask(echo).headers["x-request-id"]


def test_routes_are_few_whatever_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    for path in ("/v1/models/some%20model", "/page/app.js", "/wp-admin", "/v1/chat/completions/"):
        ask(echo, path)
    assert [line["route"] for line in lines(caplog)] == ["/v1/models/*", "/page/*", "other", "other"]


def test_an_exception_is_a_500_that_names_the_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            raise KeyError(prompt)
        except KeyError as error:
            raise ValueError(f"the text '{prompt}' is wrong") from error

    prompt = "a secret"
    answer = ask(fails)
    trace, line = lines(caplog)
    assert answer.status_code == line["status"] == 500
    assert trace["request_id"] in error_of(answer.content)["message"]
    assert "builtins.ValueError" in trace["exception"] and "builtins.KeyError" in trace["exception"]
    assert "in fails" in trace["exception"]
    assert prompt not in trace["exception"]
    assert (line["outcome"], line["level"]) == ("error", "warning")


def test_an_api_error_that_reaches_it_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    async def refuses(scope: Scope, receive: Receive, send: Send) -> None:
        raise ApiError(404, "there is no such model", param="model")

    answer = ask(refuses)
    assert answer.status_code == 404
    assert error_of(answer.content)["param"] == "model"
    assert [line["outcome"] for line in lines(caplog)] == ["complete"]


def test_an_exception_in_a_stream_is_logged_and_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        await Stream(count=0)(scope, receive, lambda message: send({**message, "more_body": True}))
        raise ValueError

    sent = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope: Scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": []}
    asyncio.run(RequestLog(fails, Metrics())(scope, Exchange().receive, send))
    assert sent[-1]["more_body"]
    assert lines(caplog)[-1]["outcome"] == "error"


def test_a_client_that_left_is_a_499(caplog: pytest.LogCaptureFixture) -> None:
    async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
        pass

    scope: Scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": []}
    asyncio.run(RequestLog(nothing, Metrics())(scope, Exchange().receive, lambda _: asyncio.sleep(0)))
    (line,) = lines(caplog)
    assert (line["status"], line["outcome"]) == (499, "client_gone")


def test_what_machines_ask_all_the_time_is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    ask(echo, "/health")
    assert [line["level"] for line in lines(caplog)] == ["debug"]


@given(st.text())
def test_a_record_is_one_line_whatever_it_says(text: str) -> None:
    record = logging.LogRecord("name", logging.INFO, "", 0, "%s", (text,), None)
    record.fields = {"route": text}
    for formatter in (JsonFormatter(), TextFormatter()):
        line = formatter.format(record)
        assert len(line.splitlines()) == 1 and line.isascii()
    assert json.loads(JsonFormatter().format(record))["message"] == text


def test_the_configuration_is_one_that_logging_takes(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["executorch_webgpu", "uvicorn", "uvicorn.access"]
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    try:
        logging.config.dictConfig(log_config("json", "info"))
        logging.getLogger("uvicorn.error").info("Started")
        logging.getLogger("uvicorn.access").info("never")
        logging.getLogger("executorch_webgpu.serve.auth").debug("never")
        (line,) = capsys.readouterr().err.splitlines()
        assert json.loads(line)["message"] == "Started"
    finally:
        for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
            logger.handlers, logger.level, logger.propagate = handlers, level, propagate
