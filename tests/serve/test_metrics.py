"""What ``/metrics`` says."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.routing import Route

from executorch_webgpu.serve.metrics import Metrics

from .asgi_calls import client

OPEN = "application/openmetrics-text; version=1.0.0"


def scrape(metrics: Metrics, accept: str = "") -> httpx.Response:
    async def run() -> httpx.Response:
        async with client(Starlette(routes=[Route("/metrics", metrics.endpoint)])) as http:
            return await http.get("/metrics", headers={"accept": accept})

    return asyncio.run(run())


def samples(metrics: Metrics) -> dict[str, float]:
    families = text_string_to_metric_families(scrape(metrics).text)
    return {
        sample.name.removeprefix("etwebgpu_") + "".join(f",{value}" for value in sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def test_what_is_counted_is_what_is_read() -> None:
    metrics = Metrics()
    metrics.prompt(100, cached_tokens=64)
    metrics.prompt(10)
    metrics.first_token(0.0042)
    metrics.tokens(1)
    metrics.tokens(4, seconds=0.008)  # four at once, as guesses are
    metrics.tokens(1, seconds=0.5)
    metrics.finished("stop")
    metrics.finished("length")
    metrics.embedded(3, 30)
    metrics.engine_up(True)
    metrics.engine_state(running=5, waiting=2, pages_used=70, pages=100)
    metrics.answered("/v1/completions", 200, 1.5)
    metrics.cancelled()
    metrics.failed()
    metrics.dropped("slow_reader")
    found = samples(metrics)
    expected = {
        "prompts_total": 2,
        "prompt_tokens_total": 110,
        "cached_prompt_tokens_total": 64,
        "prefix_hits_total": 1,
        "generated_tokens_total": 6,
        "time_to_first_token_seconds_count": 1,
        "time_to_first_token_seconds_bucket,0.003": 0,
        "time_to_first_token_seconds_bucket,0.005": 1,
        "time_between_tokens_seconds_count": 5,
        "time_between_tokens_seconds_sum": pytest.approx(0.508),
        "time_between_tokens_seconds_bucket,0.002": 4,
        "texts_finished_total,stop": 1,
        "texts_finished_total,length": 1,
        "embedded_texts_total": 3,
        "embedded_tokens_total": 30,
        "engine_up": 1,
        "texts_running": 5,
        "texts_waiting": 2,
        "kv_cache_pages_used": 70,
        "kv_cache_pages": 100,
        "request_duration_seconds_count,/v1/completions,200": 1,
        "requests_cancelled_total": 1,
        "errors_total": 1,
        "connections_dropped_total,slow_reader": 1,
    }
    assert {name: found[name] for name in expected} == expected


def test_names_have_a_prefix_units_and_help_in_both_formats() -> None:
    metrics = Metrics()
    plain = scrape(metrics)
    assert plain.headers["content-type"].startswith("text/plain; version=")
    families = list(text_string_to_metric_families(plain.text))
    ours = [family for family in families if not family.name.startswith("process_")]
    assert len(ours) > 20
    for family in ours:
        assert family.name.startswith("etwebgpu_") and family.documentation.endswith(".")
        assert family.type != "histogram" or family.name.endswith("_seconds")
    answer = scrape(metrics, OPEN)
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    names = {family.name for family in families if not family.name.endswith("_created")}
    assert {family.name for family in open_metrics(answer.text)} == names


def test_each_application_has_its_own() -> None:
    first, second = Metrics(), Metrics()
    first.tokens(3)
    assert samples(first)["generated_tokens_total"] == 3
    assert samples(second)["generated_tokens_total"] == 0
