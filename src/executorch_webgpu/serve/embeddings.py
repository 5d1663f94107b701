"""``POST /v1/embeddings``."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from ..errors import InvalidInputError
from ..text.tokenizer import Tokenizer
from .engine_client import EngineClient
from .errors import ApiError
from .http import answer, read
from .language import check_model
from .metrics import Metrics
from .requests import EmbeddingRequest

MOST_TEXTS = 2048  # of one request, as OpenAI has it


@dataclass(frozen=True)
class Embeddings:
    """The route. ``name``: what clients call the encoder."""

    client: EngineClient
    tokenizer: Tokenizer
    name: str
    metrics: Metrics

    async def endpoint(self, request: Request) -> Response:
        """Answer a request."""
        body = await read(request, EmbeddingRequest)
        check_model(body.model, self.name)
        facts = self.client.ready.encoder
        assert facts is not None
        texts = await asyncio.to_thread(self._tokens, body, facts.max_tokens)
        if body.dimensions is not None and body.dimensions > facts.dim:
            message = f"dimensions is {body.dimensions}, but embeddings of this model have {facts.dim}"
            raise ApiError(400, message, "dimensions", "invalid_value")
        found = await self.client.embed(texts, truncate=bool(body.truncate))
        if body.dimensions is not None and body.dimensions < facts.dim:
            found = _shortened(found, body.dimensions)
        count = sum(min(len(text), facts.max_tokens) for text in texts)
        self.metrics.embedded(len(texts), count)
        if (record := getattr(request.state, "record", None)) is not None:
            record.model, record.prompt_tokens = self.name, count
        data = [
            {"object": "embedding", "index": index, "embedding": _encoded(row, body.encoding_format)}
            for index, row in enumerate(found)
        ]
        counts = {"prompt_tokens": count, "total_tokens": count}
        return answer({"object": "list", "data": data, "model": self.name, "usage": counts})

    def _tokens(self, body: EmbeddingRequest, most: int) -> list[list[int]]:
        given = body.input
        several: Sequence[Any] = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
        if len(several) > MOST_TEXTS:
            message = f"input has {len(several)} texts, but one request takes {MOST_TEXTS}"
            raise ApiError(400, message, "input", "invalid_value")
        texts = []
        for index, text in enumerate(several):
            param = f"input[{index}]" if several is given else "input"
            try:
                tokens = self.tokenizer.encode(text) if isinstance(text, str) else list(text)
            except InvalidInputError as error:
                raise ApiError(400, str(error), param, "invalid_value") from error
            if bad := [token for token in tokens if token >= self.tokenizer.vocab_size]:
                raise ApiError(400, f"token {bad[0]} is not in the vocabulary", param, "invalid_value")
            if not tokens:
                raise ApiError(400, "the text is empty: it needs at least one token", param, "invalid_value")
            if len(tokens) > most and not body.truncate:
                message = (
                    f"the text has {len(tokens)} tokens, but there is room for {most}; shorten it, or set truncate"
                )
                raise ApiError(422, message, param, "context_length_exceeded")
            texts.append(tokens)
        return texts


def _shortened(embeddings: np.ndarray, dimensions: int) -> np.ndarray:
    """The first ``dimensions`` numbers of each, scaled to length 1, as models trained for that expect."""
    first = embeddings[:, :dimensions]
    lengths = np.linalg.norm(first, axis=1, keepdims=True)
    return first / np.where(lengths == 0, 1, lengths)


def _encoded(row: np.ndarray, form: str | None) -> Any:
    return base64.b64encode(row.astype("<f4").tobytes()).decode() if form == "base64" else row.tolist()
