"""Log probabilities as chat and completions show them: tokens by their text and bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..llm.stream import TokenLogprobs
from ..text.tokenizer import Tokenizer

LEAST = -9999.0  # for probabilities of 0, whose logarithm JSON cannot say


@dataclass(frozen=True)
class ScoredToken:
    """``place``: where it begins in its text, in characters. ``logprobs`` is None for a prompt's first token."""

    token: int
    place: int
    logprobs: TokenLogprobs | None


class TokenTexts:
    """Texts of single tokens. Bytes that are no whole character show as U+FFFD, beside the bytes themselves."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, bytes] = {}

    def bytes_of(self, token: int) -> bytes:
        """The bytes that a token stands for."""
        if token not in self._known:
            self._known[token] = self._tokenizer.token_bytes(token) or b""
        return self._known[token]

    def text_of(self, token: int) -> str:
        """Them as text."""
        return self.bytes_of(token).decode("utf-8", "replace")

    def name_of(self, token: int) -> str:
        """Them as text if they are text, else as OpenAI writes bytes, so that each has another name."""
        raw = self.bytes_of(token)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)

    def chat(self, tokens: Sequence[int], logprobs: Sequence[TokenLogprobs]) -> dict[str, Any]:
        """``logprobs`` of a choice of a chat, or of a part of one."""
        content = [
            {
                **self._entry(token, each.logprob),
                "top_logprobs": [self._entry(other, logprob) for other, logprob in each.likeliest],
            }
            for token, each in zip(tokens, logprobs, strict=True)
        ]
        return {"content": content, "refusal": None}

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        raw = self.bytes_of(token)
        return {"token": raw.decode("utf-8", "replace"), "logprob": max(logprob, LEAST), "bytes": list(raw)}

    def completion(self, scored: Sequence[ScoredToken], count: int) -> dict[str, Any]:
        """``logprobs`` of a choice of a completion. ``count``: how many of the likeliest tokens were asked for."""
        logprobs = [each.logprobs for each in scored]
        tops: list[dict[str, float] | None] = [
            None if each is None else {self.name_of(other): max(p, LEAST) for other, p in each.likeliest[:count]}
            for each in logprobs
        ]
        return {
            "tokens": [self.name_of(each.token) for each in scored],
            "token_logprobs": [None if each is None else max(each.logprob, LEAST) for each in logprobs],
            "top_logprobs": tops if count else None,
            "text_offset": [each.place for each in scored],
        }

    def prompt(self, tokens: Sequence[int], logprobs: Sequence[TokenLogprobs]) -> list[Any]:
        """``prompt_logprobs`` as vLLM shows them: of each token of the prompt, by token id; None of the first one."""
        shown: list[Any] = [None]
        for token, each in zip(tokens[1:], logprobs, strict=True):
            pairs = dict([*each.likeliest, (token, each.logprob)])
            shown.append(
                {str(id): {"logprob": max(p, LEAST), "decoded_token": self.text_of(id)} for id, p in pairs.items()}
            )
        return shown
