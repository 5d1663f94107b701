"""``POST /v1/completions``: prompts as text or as token ids, continued as they stand."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ..errors import InvalidInputError
from ..llm.stream import TokenLogprobs
from ..text.answer_events import Event, Text
from .choice import Choice, ChoiceOptions, FinishReason, PlainText, merged
from .errors import ApiError
from .http import DONE, answer, event, event_stream, new_id, read
from .language import Language
from .logprobs import TokenTexts
from .requests import CompletionRequest
from .sampling import grammar_of, sampling_of, stop_strings
from .usage import record, usage

DEFAULT_TOKENS = 16  # as OpenAI has it


@dataclass(frozen=True)
class Completions:
    """The route. ``texts``: of single tokens."""

    language: Language
    texts: TokenTexts

    async def endpoint(self, request: Request) -> Response:
        """Answer a request."""
        body = await read(request, CompletionRequest)
        prompts = await self._prompts(body)
        self.language.check_choices(len(prompts) * (body.n or 1))
        reply = Reply(self, request, body, prompts, await self._begin(body, prompts))
        return event_stream(reply.stream()) if body.stream else await reply.whole()

    async def _prompts(self, body: CompletionRequest) -> list[list[int]]:
        given = body.prompt
        several: Sequence[Any] = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
        prompts = []
        for index, prompt in enumerate(several):
            param = f"prompt[{index}]" if several is given else "prompt"
            if isinstance(prompt, str):
                prompt = await self._encoded(prompt, param)
            self.language.check_prompt(prompt, param)
            prompts.append(prompt)
        return prompts

    async def _encoded(self, text: str, param: str) -> list[int]:
        tokenizer = self.language.tokenizer
        try:
            tokens = await self.language.encoded(lambda: tokenizer.encode_prompt(text), len(text))
        except InvalidInputError as error:
            raise ApiError(400, str(error), param, "invalid_value") from error
        # A model that has a token for the beginning can write from nothing.
        bos = tokenizer.settings.bos_id
        return tokens or ([bos] if bos is not None else [])

    async def _begin(self, body: CompletionRequest, prompts: Sequence[list[int]]) -> list[Choice]:
        """The texts of all prompts, those of each one after another. Raises ApiError."""
        grammar = grammar_of(body)
        asked = DEFAULT_TOKENS if body.max_tokens is None else body.max_tokens
        scored = body.prompt_logprobs if body.prompt_logprobs is not None else body.logprobs if body.echo else None
        choices: list[Choice] = []
        try:
            for prompt in prompts:
                params = sampling_of(
                    body,
                    self.language.tokenizer.settings.sampling,
                    max_new_tokens=self.language.max_new_tokens(prompt, asked),
                    vocab_size=self.language.facts.vocab_size,
                    logprobs=body.logprobs,
                    prompt_logprobs=scored,
                )
                options = ChoiceOptions(stop_strings(body), body.logprobs is not None, (), asked)
                ends = self.language.ends(body)
                choices += await self.language.begin(prompt, params, grammar, ends, body.n or 1, PlainText, options)
        except BaseException:
            for choice in choices:
                choice.cancel()
            raise
        return choices


@dataclass
class _Written:
    """A text as far as it has been written: characters, and log probabilities that wait for their text."""

    text: str = ""
    characters: int = 0
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs | None] = field(default_factory=list)
    finish: FinishReason | None = None
    begun: bool = False


class Reply:
    """What a request gets, at once or in events."""

    def __init__(
        self,
        route: Completions,
        request: Request,
        body: CompletionRequest,
        prompts: Sequence[list[int]],
        choices: Sequence[Choice],
    ) -> None:
        self._language, self._texts = route.language, route.texts
        self._request, self._body, self._prompts, self._choices = request, body, prompts, choices
        head = {"id": new_id("cmpl"), "object": "text_completion", "created": int(time.time())}
        self._head = {**head, "model": route.language.name}
        self._written = [_Written() for _ in choices]

    async def whole(self) -> Response:
        """All texts, when they have ended."""
        async for _ in self._parts():
            pass
        found = []
        for index, written in enumerate(self._written):
            logprobs = self._logprobs(written, 0)
            choice = self._choice(index, written.text, logprobs, written.finish)
            if self._body.prompt_logprobs is not None:
                choice["prompt_logprobs"] = self._prompt_logprobs(index)
            found.append(choice)
        self._record()
        return answer({**self._head, "choices": found, "usage": usage(self._prompt_tokens, self._choices)})

    async def stream(self) -> AsyncIterator[bytes]:
        """The parts of all texts, as they come."""
        options = self._body.stream_options
        counted = options is not None and options.include_usage
        tail = {"usage": None} if counted else {}
        async for index in self._parts():
            written = self._written[index]
            if written.text or written.finish is not None:
                logprobs = self._logprobs(written, written.characters)
                choice = self._choice(index, written.text, logprobs, written.finish)
                written.characters += len(written.text)
                written.text = ""
                yield event({**self._head, "choices": [choice], **tail})
        self._record()
        if counted:
            yield event({**self._head, "choices": [], "usage": usage(self._prompt_tokens, self._choices)})
        yield DONE

    async def _parts(self) -> AsyncIterator[int]:
        """The index of each text that has something new in ``_written``."""
        async with aclosing(merged(self._choices, self._language.metrics)) as parts:  # type: ignore[type-var]
            async for index, part in parts:
                written = self._written[index]
                if not written.begun:
                    written.begun = True
                    if self._body.echo:
                        self._echo(index, written)
                written.text += _text(part.events)
                if self._body.logprobs is not None:
                    written.tokens += part.tokens
                    written.logprobs += part.logprobs
                written.finish = part.finish
                yield index

    def _echo(self, index: int, written: _Written) -> None:
        """Begin a text with its prompt."""
        prompt = self._prompts[index // (self._body.n or 1)]
        written.text = self._language.tokenizer.decode(prompt, keep_special=False)
        if self._body.logprobs is not None:
            written.tokens = list(prompt)
            written.logprobs = [None, *self._choices[index].prompt_logprobs]

    def _logprobs(self, written: _Written, offset: int) -> dict[str, Any] | None:
        if self._body.logprobs is None:
            return None
        found = self._texts.completion(written.tokens, written.logprobs, self._body.logprobs, offset)
        written.tokens, written.logprobs = [], []
        return found

    def _prompt_logprobs(self, index: int) -> list[Any]:
        """As vLLM shows them: of each token of the prompt, by token id."""
        prompt = self._prompts[index // (self._body.n or 1)]
        shown: list[Any] = [None]
        for token, each in zip(prompt[1:], self._choices[index].prompt_logprobs, strict=True):
            pairs = chain(each.likeliest, [(token, each.logprob)])
            shown.append({str(t): {"logprob": p, "decoded_token": self._texts.text_of(t)} for t, p in pairs})
        return shown

    def _choice(
        self, index: int, text: str, logprobs: dict[str, Any] | None, finish: FinishReason | None
    ) -> dict[str, Any]:
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}

    @property
    def _prompt_tokens(self) -> int:
        return sum(map(len, self._prompts))

    def _record(self) -> None:
        record(self._request, self._language.name, self._prompt_tokens, self._choices)


def _text(events: Sequence[Event]) -> str:
    return "".join(each.text for each in events if isinstance(each, Text))
