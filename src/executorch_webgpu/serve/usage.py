"""How many tokens a request took."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request

from .choice import Choice


def usage(prompt_tokens: int, choices: Sequence[Choice]) -> dict[str, Any]:
    """``usage`` of chat and completions. A prompt that several texts share counts once."""
    new = sum(len(choice.tokens) for choice in choices)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": new,
        "total_tokens": prompt_tokens + new,
        "prompt_tokens_details": {"cached_tokens": cached_tokens(prompt_tokens, choices)},
        "completion_tokens_details": {"reasoning_tokens": sum(choice.reasoning_tokens for choice in choices)},
    }


def cached_tokens(prompt_tokens: int, choices: Sequence[Choice]) -> int:
    """Tokens of the prompts whose rows the engine held before the request; of each prompt's first text."""
    return min(prompt_tokens, sum(choice.cached_tokens for choice in choices if choice.first))


def record(request: Request, model: str, prompt_tokens: int, choices: Sequence[Choice]) -> None:
    """Leave the counts for the log."""
    kept = getattr(request.state, "record", None)
    if kept is not None:
        kept.model, kept.prompt_tokens = model, prompt_tokens
        kept.cached_tokens = cached_tokens(prompt_tokens, choices)
        kept.generated_tokens = sum(len(choice.tokens) for choice in choices)
