"""``GET /openapi.json``: what the server takes, from the models that requests are checked with."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from .. import __version__
from .requests import ChatRequest, CompletionRequest, DetokenizeRequest, EmbeddingRequest, TokenizeRequest
from .responses_requests import ResponsesRequest
from .settings import ServerSettings

_REF = "#/components/schemas/{model}"
_ERRORS = {
    "400": "The request is wrong; the message says what about it.",
    "401": "There is no API key, or it is not known.",
    "403": "This Host, or the page that asks, is not allowed.",
    "404": "There is no such thing; the message says which.",
    "408": "The body did not arrive in time.",
    "413": "The body is too large.",
    "415": "The body is no JSON, by its headers.",
    "422": "The prompt is longer than there is room for.",
    "429": "Too many requests run and wait; Retry-After says when to try again.",
    "500": "The server failed; its log says more.",
    "503": "The engine is not there; Retry-After says when to try again.",
    "504": "The request took too long.",
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def openapi(settings: ServerSettings) -> dict[str, Any]:
    """The document of a server with these models."""
    bodies = {
        "/v1/chat/completions": (ChatRequest, "Continue a conversation.", True),
        "/v1/completions": (CompletionRequest, "Continue prompts as they stand.", True),
        "/v1/responses": (ResponsesRequest, "Continue a conversation, by items.", True),
        "/tokenize": (TokenizeRequest, "Token ids of a text or a conversation.", False),
        "/detokenize": (DetokenizeRequest, "The text of token ids.", False),
        "/v1/embeddings": (EmbeddingRequest, "Embeddings of texts.", False),
    }
    if settings.engine.program is None:
        bodies = {path: each for path, each in bodies.items() if path == "/v1/embeddings"}
    elif settings.engine.embeddings is None:
        bodies.pop("/v1/embeddings")
    models = [(model, "validation") for model, _, _ in bodies.values()]
    _, schemas = models_json_schema(models, ref_template=_REF)  # type: ignore[arg-type]
    paths: dict[str, Any] = {
        path: {"post": _post(model.__name__, summary, streams)} for path, (model, summary, streams) in bodies.items()
    }
    paths |= {
        "/v1/models": {"get": _get("The models that this server has.")},
        "/v1/models/{name}": {"parameters": [_named("name")], "get": _get("A model that this server has.")},
        "/health": {"get": _get("Whether requests can be done.")},
        "/metrics": {"get": _get("Metrics for Prometheus.", "text/plain")},
    }
    if settings.engine.program is not None:
        paths["/v1/responses/{id}"] = {
            "parameters": [_named("id")],
            "get": _get("A response that was kept."),
            "delete": _get("Forget a response."),
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "executorch-webgpu", "version": __version__, "description": "OpenAI's API over WebGPU."},
        "paths": paths,
        "components": {
            "schemas": {**schemas["$defs"], "Error": _ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _named(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _get(summary: str, media_type: str = "application/json") -> dict[str, Any]:
    return {
        "summary": summary,
        "responses": {"200": {"description": "Done.", "content": {media_type: {}}}, **_errors()},
    }


def _post(model: str, summary: str, streams: bool) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    if streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    body = {"required": True, "content": {"application/json": {"schema": {"$ref": _REF.format(model=model)}}}}
    return {
        "summary": summary,
        "requestBody": body,
        "responses": {"200": {"description": "Done.", "content": content}, **_errors()},
    }


def _errors() -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": _REF.format(model="Error")}}}
    return {status: {"description": text, "content": content} for status, text in _ERRORS.items()}
