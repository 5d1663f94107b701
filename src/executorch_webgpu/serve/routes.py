"""What a path stands for before anything is routed: who may ask for it, what it costs, and its name in logs."""

from __future__ import annotations

from starlette.types import Scope

# Paths whose names logs and metrics show. Whatever else is asked for is "other", so that nobody can make names up.
KNOWN = frozenset(
    {
        "/",
        "/detokenize",
        "/health",
        "/metrics",
        "/openapi.json",
        "/tokenize",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/models",
        "/v1/responses",
    }
)
# What takes a body, but no time of a model.
WITHOUT_MODEL = frozenset({"/detokenize", "/tokenize"})
PAGE = "/page/"
NAMED = ("/v1/models/", "/v1/responses/", PAGE)  # what follows is a name, which nothing shows


def path_of(scope: Scope) -> str:
    """The path below the one that the application is mounted at."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    return path.removeprefix(root) if root and path.startswith(f"{root}/") else path


def name_of(scope: Scope) -> str:
    """The route's name: one of few, whatever the path is."""
    path = path_of(scope)
    if path in KNOWN:
        return path
    return next((f"{each}*" for each in NAMED if path.startswith(each)), "other")


def needs_model(scope: Scope) -> bool:
    """Whether a request may take a model's time, so that only so many may run."""
    return scope["method"] == "POST" and path_of(scope) not in WITHOUT_MODEL


def is_page(scope: Scope) -> bool:
    """Whether a request reads the chat page, or a static file of it."""
    path = path_of(scope)
    return scope["method"] in ("GET", "HEAD") and (path in ("/", "/favicon.ico") or path.startswith(PAGE))
