"""What Prometheus reads at ``/metrics``: a registry for each application, and the methods that fill it.

Methods that are called for each piece of a stream touch counters that are bound beforehand, so they take about a
microsecond. Names begin with ``etwebgpu_`` and end in their unit.
"""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import Response

# Seconds. A first token takes milliseconds after a short prompt, minutes behind a long queue.
FIRST_TOKEN = (
    *(0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75),
    *(1, 1.5, 2, 3, 5, 7.5, 10, 15, 30, 60, 120),
)
BETWEEN_TOKENS = (
    *(0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.006, 0.008, 0.01, 0.0125, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05),
    *(0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10),
)
DURATION = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)


class Metrics:
    """The metrics of one application. Its methods are cheap, and may be called from any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests()
        self._tokens()
        self._engine()

    def _requests(self) -> None:
        self._running = self._gauge("requests_running", "Requests that take a model's time, or wait for its engine.")
        self._waiting = self._gauge("requests_waiting", "Requests that wait until fewer run.")
        self._duration = Histogram(
            "etwebgpu_request_duration_seconds",
            "Time from a request's head to the end of its answer, by route and status (499: the client went away).",
            ("route", "status"),
            buckets=DURATION,
            registry=self.registry,
        )
        self._cancelled = self._counter("requests_cancelled", "Requests that ended because their client went away.")
        self._timed_out = self._counter("requests_timed_out", "Requests that ended because their time was over.")
        self._errors = self._counter("errors", "Requests and streams that failed by no fault of the client.")
        self._connections = self._gauge("connections", "Open connections of clients.")
        self._dropped = Counter(
            "etwebgpu_connections_dropped",
            "Connections that the server closed: too many, a head too slow or too large, a client too slow to read.",
            ("reason",),
            registry=self.registry,
        )

    def _tokens(self) -> None:
        self._prompt = self._counter("prompt_tokens", "Tokens of prompts, those of prefixes that were held included.")
        self._cached = self._counter("cached_prompt_tokens", "Tokens of prompts whose rows an engine held already.")
        self._prefixes = self._counter("prompts", "Prompts that an engine took.")
        self._prefix_hits = self._counter("prefix_hits", "Prompts whose beginning an engine held already.")
        self._generated = self._counter("generated_tokens", "Tokens that were generated.")
        self._first = self._histogram(
            "time_to_first_token_seconds", "Time from a request's body to its first token.", FIRST_TOKEN
        )
        self._between = self._histogram(
            "time_between_tokens_seconds", "Time from a token of a text to its next one.", BETWEEN_TOKENS
        )
        self._finished = Counter(
            "etwebgpu_texts_finished", "Texts that ended, by finish_reason.", ("reason",), registry=self.registry
        )
        self._embedded = self._counter("embedded_texts", "Texts that were embedded.")
        self._embedded_tokens = self._counter("embedded_tokens", "Tokens of texts that were embedded.")

    def _engine(self) -> None:
        self._up = self._gauge("engine_up", "1 while the engine runs, 0 while it starts and after it failed.")
        self._texts_running = self._gauge("texts_running", "Texts that have rows in the engine's steps.")
        self._texts_waiting = self._gauge("texts_waiting", "Texts that wait for pages of the KV cache.")
        self._pages = self._gauge("kv_cache_pages", "Pages of the KV cache.")
        self._pages_used = self._gauge("kv_cache_pages_used", "Pages of the KV cache that texts hold.")

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"etwebgpu_{name}", text, registry=self.registry)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"etwebgpu_{name}", text, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(f"etwebgpu_{name}", text, buckets=buckets, registry=self.registry)

    # Requests: the middlewares call these.

    def running(self, change: int) -> None:
        """A request began (+1) or ended (-1) to take a model's time."""
        self._running.inc(change)

    def waiting(self, change: int) -> None:
        """A request began (+1) or ended (-1) to wait for others."""
        self._waiting.inc(change)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """A request is over. ``route``: one of few names."""
        self._duration.labels(route, str(status)).observe(seconds)

    def cancelled(self) -> None:
        """A client went away before its answer was complete."""
        self._cancelled.inc()

    def timed_out(self) -> None:
        """A request was ended because its time was over."""
        self._timed_out.inc()

    def failed(self) -> None:
        """A request, or a stream after its first byte, failed by no fault of its client."""
        self._errors.inc()

    def connected(self, change: int) -> None:
        """A connection was opened (+1) or closed (-1)."""
        self._connections.inc(change)

    def dropped(self, reason: str) -> None:
        """The server closed a connection. ``reason``: one of few words."""
        self._dropped.labels(reason).inc()

    # Texts: the routes call these.

    def prompt(self, tokens: int, cached_tokens: int = 0) -> None:
        """An engine took a prompt, and held the rows of its first ``cached_tokens``."""
        self._prefixes.inc()
        self._prompt.inc(tokens)
        if cached_tokens:
            self._prefix_hits.inc()
            self._cached.inc(cached_tokens)

    def first_token(self, seconds: float) -> None:
        """The first token of a text came, after this time. ``tokens`` counts it too."""
        self._first.observe(seconds)

    def tokens(self, count: int, seconds: float | None = None) -> None:
        """``count`` more tokens of a text came at once, ``seconds`` after those before it; None for its first."""
        self._generated.inc(count)
        if seconds is not None and count:
            gap = seconds / count
            for _ in range(count):
                self._between.observe(gap)

    def finished(self, reason: str) -> None:
        """A text ended. ``reason``: OpenAI's ``finish_reason``, "cancelled" or "error"."""
        self._finished.labels(reason).inc()

    def embedded(self, texts: int, tokens: int) -> None:
        """Texts were embedded."""
        self._embedded.inc(texts)
        self._embedded_tokens.inc(tokens)

    # The engine: who reads its state calls these.

    def engine_up(self, up: bool) -> None:
        """The engine runs, or does not."""
        self._up.set(up)

    def engine_state(self, running: int, waiting: int, pages_used: int, pages: int) -> None:
        """How many texts are in the engine, and how many of its KV pages they hold."""
        self._texts_running.set(running)
        self._texts_waiting.set(waiting)
        self._pages_used.set(pages_used)
        self._pages.set(pages)

    async def endpoint(self, request: Request) -> Response:
        """The route ``/metrics``: Prometheus' text format, or OpenMetrics for those who accept that."""
        encoder, media_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encoder(self.registry), headers={"content-type": media_type})
