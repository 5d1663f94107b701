"""``POST /tokenize`` and ``POST /detokenize``, by the names of vLLM and of llama.cpp's server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ..errors import InvalidInputError
from .chat_prompt import Conversation, stated_tools
from .errors import ApiError
from .http import answer, read
from .language import Language
from .logprobs import TokenTexts
from .requests import DetokenizeRequest, TokenizeRequest


@dataclass(frozen=True)
class Tokens:
    """The routes."""

    language: Language
    texts: TokenTexts

    async def tokenize(self, request: Request) -> Response:
        """Token ids of a text, or of a chat."""
        body = await read(request, TokenizeRequest)
        self.language.check_model(body.model)
        given = [each for each in (body.prompt, body.content, body.messages) if each is not None]
        if len(given) != 1:
            raise ApiError(400, "give one of prompt, content and messages", "prompt", "invalid_value")
        tokenizer = self.language.tokenizer
        if body.messages is not None:
            tokens = await Conversation.of(body.messages, stated_tools(body.tools), body).tokens(self.language)
        else:
            text, special = str(given[0]), body.add_special_tokens and body.content is None

            def encode() -> list[int]:
                return tokenizer.encode(text, parse_special=body.parse_special, add_special=special)

            try:
                tokens = await self.language.encoded(encode, len(text))
            except InvalidInputError as error:
                raise ApiError(400, str(error), "prompt", "invalid_value") from error
        content: dict[str, Any] = {
            "tokens": tokens,
            "count": len(tokens),
            "max_model_len": self.language.facts.context_len,
        }
        if body.with_pieces:
            content["tokens"] = [{"id": token, "piece": self.texts.text_of(token)} for token in tokens]
        if body.return_token_strs:
            content["token_strs"] = [self.texts.text_of(token) for token in tokens]
        return answer(content)

    async def detokenize(self, request: Request) -> Response:
        """The text of token ids, special tokens included."""
        body = await read(request, DetokenizeRequest)
        self.language.check_model(body.model)
        vocab_size = self.language.facts.vocab_size
        if bad := [token for token in body.tokens if token >= vocab_size]:
            message = f"token {bad[0]} is not in the vocabulary of {vocab_size} tokens"
            raise ApiError(400, message, "tokens", "invalid_value")
        text = self.language.tokenizer.decode(body.tokens, keep_special=True)
        return answer({"prompt": text, "content": text})
