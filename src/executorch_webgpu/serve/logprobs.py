"""Log probabilities as chat and completions show them: tokens by their text and bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..llm.stream import TokenLogprobs
from ..text.tokenizer import Tokenizer

LEAST = -9999.0  # for probabilities of 0, whose logarithm JSON cannot say


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

    def completion(
        self, tokens: Sequence[int], logprobs: Sequence[TokenLogprobs | None], count: int, offset: int
    ) -> dict[str, Any]:
        """``logprobs`` of a choice of a completion, whose text has ``offset`` characters before these tokens.

        ``count``: how many of the likeliest tokens were asked for. None stands for a prompt's first token.
        """
        texts = [self.text_of(token) for token in tokens]
        offsets = []
        for text in texts:
            offsets.append(offset)
            offset += len(text)
        tops: list[dict[str, float] | None] = [
            None if each is None else {self.text_of(other): max(p, LEAST) for other, p in each.likeliest[:count]}
            for each in logprobs
        ]
        return {
            "tokens": texts,
            "token_logprobs": [None if each is None else max(each.logprob, LEAST) for each in logprobs],
            "top_logprobs": tops if count else None,
            "text_offset": offsets,
        }
