"""The language model of a server: prompts in, texts out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from ..llm.grammar import Grammar
from ..llm.sample import SamplingParams
from ..llm.token_rules import TokenRules
from ..text.tokenizer import Tokenizer
from .choice import Choice, ChoiceOptions, Parser
from .engine_client import EngineClient
from .errors import ApiError
from .metrics import Metrics
from .requests import DrawingFields
from .sampling import for_choice, rules_of
from .wire import LanguageFacts

INLINE_CHARACTERS = 20_000  # of a prompt that is encoded at once; longer ones take a thread of their own


def check_model(asked: str | None, name: str) -> None:
    """Raise ApiError where a request asks for another model than the one that its route has, whose name is ``name``."""
    if asked is not None and asked != name:
        message = f"there is no model {asked!r} at this route, only {name!r}; leave model out, or see /v1/models"
        raise ApiError(404, message, "model", "model_not_found")


class Language:
    """The model. ``name``: what clients call it. ``max_prompt_tokens``: of a prompt, also where the context holds more;
    ``max_choices``: texts of a request."""

    def __init__(
        self,
        client: EngineClient,
        tokenizer: Tokenizer,
        name: str,
        metrics: Metrics,
        *,
        max_prompt_tokens: int | None,
        max_choices: int,
    ) -> None:
        self.client, self.tokenizer, self.name, self.metrics = client, tokenizer, name, metrics
        self._max_prompt_tokens, self._max_choices = max_prompt_tokens, max_choices
        self._encoders = ThreadPoolExecutor(4, "encode")
        self._encoding: list[Future[list[int]]] = []  # of texts that threads encode

    @property
    def facts(self) -> LanguageFacts:
        """Sizes of the model and its engine."""
        facts = self.client.ready.language
        assert facts is not None
        return facts

    async def encoded(self, encode: Callable[[], list[int]], characters: int) -> list[int]:
        """Tokens of a prompt of so many characters. Others go on, while a long one is encoded."""
        self._encoding = [future for future in self._encoding if not future.done()]
        # One tokenizer encodes one text at a time, so a short one would wait, and all else with it.
        if characters < INLINE_CHARACTERS and not self._encoding:
            return encode()
        future = self._encoders.submit(encode)
        self._encoding.append(future)
        return await asyncio.wrap_future(future)

    def check_model(self, asked: str | None) -> None:
        """Raise ApiError where a request names another model."""
        check_model(asked, self.name)

    def check_prompt(self, tokens: Sequence[int], param: str) -> None:
        """Raise ApiError for a prompt that is empty, too long, or of tokens that are none."""
        facts = self.facts
        if not tokens:
            raise ApiError(400, "the prompt is empty: it needs at least one token", param, "invalid_value")
        most = min(facts.context_len, facts.pool_rows, self._max_prompt_tokens or facts.context_len)
        if len(tokens) > most:
            raise ApiError(
                422,
                f"the prompt has {len(tokens)} tokens, but there is room for {most}; give a shorter one",
                param,
                "context_length_exceeded",
            )
        if bad := [token for token in tokens if token >= facts.vocab_size]:
            raise ApiError(
                400, f"token {bad[0]} is not in the vocabulary of {facts.vocab_size} tokens", param, "invalid_value"
            )

    def max_new_tokens(self, prompt: Sequence[int], asked: int | None) -> int:
        """How many tokens a text may get: what was asked for, or what there is room for."""
        room = min(self.facts.context_len, self.facts.pool_rows) - len(prompt) + 1
        return max(1, room if asked is None else min(asked, room))

    def ends(self, request: DrawingFields) -> frozenset[int]:
        """Tokens that end a text of this request. Raises ApiError."""
        vocab_size = self.facts.vocab_size
        if bad := [token for token in request.stop_token_ids or () if token >= vocab_size]:
            message = f"stop_token_ids: token {bad[0]} is not in the vocabulary of {vocab_size} tokens"
            raise ApiError(400, message, "stop_token_ids", "invalid_value")
        own = frozenset() if request.ignore_eos else self.tokenizer.eos_ids | self.facts.eos_ids
        return own | frozenset(request.stop_token_ids or ())

    def kept_ends(self, request: DrawingFields) -> frozenset[int]:
        """Tokens that end a text of this request and are a part of it, so that the engine must not keep them."""
        return frozenset(request.stop_token_ids or ()) if request.include_stop_str_in_output else frozenset()

    def rules(self, request: DrawingFields, most: int | None) -> TokenRules | None:
        """Which tokens may come. ``most``: tokens of a text, as asked for. Raises ApiError."""
        return rules_of(request, self.tokenizer, self.facts.vocab_size, self.ends(request), most)

    def check_choices(self, count: int) -> None:
        """Raise ApiError for more texts than one request may ask for."""
        if count > self._max_choices:
            raise ApiError(
                400,
                f"the request asks for {count} texts, but one may ask for {self._max_choices}",
                "n",
                "invalid_value",
            )

    async def begin(
        self,
        prompt: Sequence[int],
        params: SamplingParams,
        grammar: Grammar | None,
        ends: frozenset[int],
        count: int,
        parser: Callable[[], Parser],
        options: ChoiceOptions,
        grammar_from: str,
    ) -> list[Choice]:
        """Submit ``count`` texts of one prompt. Raises ApiError, and ends those that have begun.

        ``grammar_from``: the field of the request that has the grammar, which the engine may refuse.
        """
        parsers = [parser() for _ in range(count)]  # before anything runs: a template may be at fault
        choices = [
            Choice(
                self.client.submit(prompt, for_choice(params, index), ends, grammar),
                self.tokenizer,
                prompt,
                parsers[index],
                options,
            )
            for index in range(count)
        ]
        for choice in choices[1:]:
            choice.first = False
        try:
            for choice in choices:
                await choice.accepted()
        except BaseException as error:
            for choice in choices:
                choice.cancel()
            if isinstance(error, ApiError) and error.status == 400 and error.param is None and grammar is not None:
                raise ApiError(400, error.message, grammar_from, "invalid_grammar") from error
            raise
        return choices
