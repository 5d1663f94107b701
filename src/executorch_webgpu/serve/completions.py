"""``POST /v1/completions``: prompts as text or as token ids, continued as they stand."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ..errors import InvalidInputError
from ..text.answer_events import Event, Text
from .choice import Choice, ChoiceOptions, FinishReason, PlainText, merged
from .errors import ApiError
from .http import DONE, FINGERPRINT, EventStream, answer, event, new_id, read
from .language import Language
from .logprobs import ScoredToken, TokenTexts
from .requests import CompletionRequest
from .sampling import check_one_rule, grammar_of, sampling_of, stop_strings
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
        self.language.check_model(body.model)
        if body.stream and body.prompt_logprobs is not None:
            message = "prompt_logprobs come with the whole answer: leave stream out, or use echo with logprobs"
            raise ApiError(400, message, "prompt_logprobs", "unsupported_parameter")
        prompts = await self._prompts(body)
        choices = await self._begin(body, prompts)
        reply = Reply(self, request, body, prompts, choices)
        return EventStream(reply.stream(), choices, self.language.metrics) if body.stream else await reply.whole()

    async def _prompts(self, body: CompletionRequest) -> list[list[int]]:
        given = body.prompt
        several: Sequence[Any] = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
        self.language.check_choices(len(several) * (body.n or 1))  # before each of very many is encoded
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
        grammar, field = grammar_of(body, body.response_format)
        asked = DEFAULT_TOKENS if body.max_tokens is None else body.max_tokens
        scored = body.prompt_logprobs if body.prompt_logprobs is not None else body.logprobs if body.echo else None
        special = self.language.tokenizer.named_special_ids if body.skip_special_tokens is False else ()
        check_one_rule(body, grammar, field)
        kept, rules = self.language.kept_ends(body), self.language.rules(body, asked)
        options = ChoiceOptions(
            stop_strings(body),
            body.logprobs is not None,
            special,
            asked,
            included=bool(body.include_stop_str_in_output),
            stop_tokens=kept,
            least=body.min_tokens or 0,
        )
        ends = self.language.ends(body) - kept
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
                    rules=rules,
                )
                count = body.n or 1
                choices += await self.language.begin(prompt, params, grammar, ends, count, PlainText, options, field)
        except BaseException:
            for choice in choices:
                choice.cancel()
            raise
        return choices


@dataclass
class _Written:
    """A text as far as it has been written: log probabilities wait for their text. ``echoed``:
    characters of the prompt."""

    text: str = ""
    echoed: int = 0
    scored: list[ScoredToken] = field(default_factory=list)
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
        self._head = {**head, "model": route.language.name, **FINGERPRINT}
        self._written = [_Written() for _ in choices]

    async def whole(self) -> Response:
        """All texts, when they have ended."""
        async for _ in self._parts():
            pass
        found = []
        for index, written in enumerate(self._written):
            logprobs = self._logprobs(written)
            choice = self._choice(index, written.text, logprobs, written.finish)
            if self._body.prompt_logprobs is not None:
                prompt = self._prompts[index // (self._body.n or 1)]
                choice["prompt_logprobs"] = self._texts.prompt(prompt, self._choices[index].prompt_logprobs)
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
                logprobs = self._logprobs(written)
                choice = self._choice(index, written.text, logprobs, written.finish)
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
                    places = [written.echoed + place for place in part.places]
                    written.scored += map(ScoredToken, part.tokens, places, part.logprobs)
                written.finish = part.finish
                yield index

    def _echo(self, index: int, written: _Written) -> None:
        """Begin a text with its prompt."""
        prompt = self._prompts[index // (self._body.n or 1)]
        stream, places = self._language.tokenizer.stream(), []
        # A character that the prompt leaves unfinished is the answer's first.
        if self._body.logprobs is None:
            written.text = stream.push_all(prompt)
        else:
            for token in prompt:
                places.append(len(written.text))
                written.text += stream.push(token)
        written.echoed = len(written.text)
        if self._body.logprobs is not None:
            logprobs = [None, *self._choices[index].prompt_logprobs]
            written.scored = [ScoredToken(*each) for each in zip(prompt, places, logprobs, strict=True)]

    def _logprobs(self, written: _Written) -> dict[str, Any] | None:
        if self._body.logprobs is None:
            return None
        found = self._texts.completion(written.scored, self._body.logprobs)
        written.scored = []
        return found

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
