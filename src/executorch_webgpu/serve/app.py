"""The ASGI application: its routes, and what lives as long as it does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ..llm.program_tokenizer import tokenizer_of
from ..runtime import Runtime
from ..text.tokenizer import Tokenizer
from .auth import ApiKeys
from .chat import Chat
from .completions import Completions
from .embeddings import Embeddings
from .engine_client import EngineClient
from .errors import ApiError
from .http import answer
from .language import Language
from .limits import Limits
from .logprobs import TokenTexts
from .metrics import Metrics
from .middleware import middlewares
from .openapi import openapi
from .page_files import page_routes
from .responses import Responses
from .settings import ServerSettings
from .shutdown import Draining
from .tokens import Tokens

LOAD_SECONDS = 2.0  # between two looks at how busy the engine is, for the metrics


@dataclass
class Server:
    """What an application is made of. ``client``: the engine; it is started with the application."""

    settings: ServerSettings
    client: EngineClient
    limits: Limits = field(default_factory=Limits)
    keys: ApiKeys = field(default_factory=ApiKeys)
    draining: Draining = field(default_factory=Draining)
    metrics: Metrics = field(default_factory=Metrics)
    network: Mapping[str, Any] = field(default_factory=dict)  # further arguments of ``middlewares``

    def __post_init__(self) -> None:
        self.created = int(time.time())

    async def models(self, request: Request) -> Response:
        """``GET /v1/models`` and ``GET /v1/models/NAME``."""
        models = self._models()
        name = request.path_params.get("name")
        if name is None:
            return answer({"object": "list", "data": models})
        found = next((model for model in models if model["id"] == name), None)
        if found is None:
            known = " and ".join(model["id"] for model in models)
            raise ApiError(404, f"there is no model named {name}; this server has {known}", "model", "model_not_found")
        return answer(found)

    def _models(self) -> list[dict[str, Any]]:
        ready = self.client.ready
        models = []
        for name, facts, use in (
            (self.settings.name, ready.language, "chat"),
            (self.settings.embeddings_name, ready.encoder, "embeddings"),
        ):
            if facts is not None:
                length = getattr(facts, "context_len", None) or getattr(facts, "max_tokens", None)
                models.append(
                    {
                        "id": name,
                        "object": "model",
                        "created": self.created,
                        "owned_by": "executorch-webgpu",
                        "max_model_len": length,
                        "capabilities": [use],
                    }
                )
        return models

    async def health(self, request: Request) -> Response:
        """``GET /health``: 200 while requests can be done, else 503."""
        if self.client.state != "up":
            raise ApiError(503, f"the engine is {self.client.state}", headers={"Retry-After": "5"})
        return answer({"status": "ok", "adapter": self.client.ready.adapter})

    async def api_error(self, request: Request, error: Exception) -> Response:
        """The answer to a request that cannot be done."""
        assert isinstance(error, ApiError)
        if error.status >= 500:
            self.metrics.failed()
        return error.response()

    async def watch(self) -> None:
        """Keep the metrics of the engine up to date, for as long as this runs."""
        while True:
            up = self.client.state == "up"
            self.metrics.engine_up(up)
            if up and self.client.ready.language is not None:
                with suppress(ApiError):
                    load = await self.client.load()
                    used = load.kv_pages - load.idle_pages
                    self.metrics.engine_state(load.running, load.waiting, used, load.kv_pages)
            elif not up:
                self.metrics.engine_state(0, 0, 0, 0)
            await asyncio.sleep(LOAD_SECONDS)


def build_app(settings: ServerSettings, client: EngineClient | None = None, **parts: Any) -> Starlette:
    """The application of a server.

    ``client``: an engine that the caller starts; else one is started with the application. Either ends with it.
    ``parts``: further fields of ``Server``. Raises InvalidInputError for a program without a tokenizer.
    """
    server = Server(settings, client or EngineClient(settings.engine), **parts)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        if client is None:
            await server.client.start()
        watch = asyncio.create_task(server.watch())
        try:
            yield
        finally:
            watch.cancel()
            await server.client.close()

    document = openapi(settings)

    async def described(request: Request) -> Response:
        return answer(document)

    routes: list[BaseRoute] = [
        *_language_routes(server),  # first, as routes are tried in turn
        *_encoder_routes(server),
        Route("/v1/models", server.models),
        Route("/v1/models/{name:path}", server.models),
        Route("/health", server.health),
        Route("/metrics", server.metrics.endpoint),
        Route("/openapi.json", described),
        *(page_routes() if settings.page else ()),
    ]
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=middlewares(server.limits, server.metrics, server.draining, server.keys, **server.network),
        exception_handlers={HTTPException: _http_error, ApiError: server.api_error},
    )
    app.state.server = server
    return app


def _tokenizer(path: str, file: str | None = None) -> Tokenizer:
    with Runtime.get().load_program(path) as program:
        return tokenizer_of(program, file)


def _language_routes(server: Server) -> list[BaseRoute]:
    settings = server.settings
    if settings.engine.program is None:
        return []
    tokenizer = _tokenizer(settings.engine.program, settings.engine.tokenizer)
    language = Language(
        server.client,
        tokenizer,
        settings.name,
        server.metrics,
        max_prompt_tokens=settings.max_prompt_tokens,
        max_choices=settings.max_choices,
    )
    texts = TokenTexts(tokenizer)
    tokens = Tokens(language, texts)
    responses = Responses(language)
    return [
        _post("/v1/chat/completions", Chat(language, texts).endpoint),
        _post("/v1/completions", Completions(language, texts).endpoint),
        _post("/v1/responses", responses.endpoint),
        Route("/v1/responses/{id}", responses.stored, methods=["GET", "DELETE"]),
        _post("/tokenize", tokens.tokenize),
        _post("/detokenize", tokens.detokenize),
    ]


def _encoder_routes(server: Server) -> list[BaseRoute]:
    settings = server.settings
    if settings.engine.embeddings is None:
        return []
    tokenizer = _tokenizer(settings.engine.embeddings)
    endpoint = Embeddings(server.client, tokenizer, settings.embeddings_name, server.metrics).endpoint
    return [_post("/v1/embeddings", endpoint)]


def _post(path: str, endpoint: Callable[[Request], Awaitable[Response]]) -> Route:
    return Route(path, endpoint, methods=["POST"])


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    sentence = {
        404: f"there is nothing at {request.url.path}; see /openapi.json for what there is",
        405: f"{request.url.path} does not take {request.method}",
    }.get(error.status_code, error.detail)
    return ApiError(error.status_code, sentence, headers=error.headers or {}).response()
