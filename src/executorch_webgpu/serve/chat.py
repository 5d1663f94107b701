"""``POST /v1/chat/completions``."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ..text.answer_events import CallArguments, CallBegun, Event, Reasoning, Text
from .chat_prompt import ChatPrompt, chat_prompt
from .choice import Choice, ChoiceOptions, FinishReason, merged
from .errors import ApiError
from .http import DONE, FINGERPRINT, EventStream, answer, event, new_id, read
from .language import Language
from .logprobs import TokenTexts
from .requests import ChatRequest
from .sampling import check_one_rule, sampling_of, stop_strings
from .usage import record, usage


@dataclass(frozen=True)
class Chat:
    """The route. ``texts``: of single tokens."""

    language: Language
    texts: TokenTexts

    async def endpoint(self, request: Request) -> Response:
        """Answer a request."""
        body = await read(request, ChatRequest)
        self.language.check_model(body.model)
        _check_logprobs(body)
        self.language.check_choices(body.n or 1)
        prompt = await chat_prompt(self.language, body)
        choices = await begin(self.language, body, prompt)
        reply = Reply(self, request, body, prompt, choices)
        return EventStream(reply.stream(), choices, self.language.metrics) if body.stream else await reply.whole()


def _check_logprobs(body: ChatRequest) -> None:
    if body.top_logprobs and not body.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs to be true", "top_logprobs", "invalid_value")
    if body.stream and body.prompt_logprobs is not None:
        message = "prompt_logprobs come with the whole answer: leave stream out"
        raise ApiError(400, message, "prompt_logprobs", "unsupported_parameter")


async def begin(language: Language, body: ChatRequest, prompt: ChatPrompt) -> list[Choice]:
    """Submit the texts of a request. Raises ApiError."""
    asked = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    check_one_rule(body, prompt.grammar, prompt.grammar_from)
    params = sampling_of(
        body,
        language.tokenizer.settings.sampling,
        max_new_tokens=language.max_new_tokens(prompt.tokens, asked),
        vocab_size=language.facts.vocab_size,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        prompt_logprobs=body.prompt_logprobs,
        rules=language.rules(body, asked),
    )
    kept = language.kept_ends(body)
    options = ChoiceOptions(
        stop_strings(body),
        bool(body.logprobs),
        prompt.special_tokens,
        asked,
        prompt.may_reason,
        1 if body.parallel_tool_calls is False else None,
        bool(body.include_stop_str_in_output),
        kept,
        body.min_tokens or 0,
    )
    return await language.begin(
        prompt.tokens,
        params,
        prompt.grammar,
        language.ends(body) - kept,
        body.n or 1,
        prompt.parser,
        options,
        prompt.grammar_from,
    )


class Reply:
    """What a request gets, at once or in events."""

    def __init__(
        self, chat: Chat, request: Request, body: ChatRequest, prompt: ChatPrompt, choices: Sequence[Choice]
    ) -> None:
        self._chat, self._request, self._body, self._prompt, self._choices = chat, request, body, prompt, choices
        self._head = {"id": new_id("chatcmpl"), "created": int(time.time()), "model": chat.language.name, **FINGERPRINT}

    async def whole(self) -> Response:
        """All texts, when they have ended."""
        messages = [_Message() for _ in self._choices]
        async with aclosing(merged(self._choices, self._chat.language.metrics)) as parts:  # type: ignore[type-var]
            async for index, part in parts:
                messages[index].add(part.events)
                messages[index].logprobs += zip(part.tokens, part.logprobs, strict=False)
                messages[index].finish = part.finish or messages[index].finish
        found = [self._whole_choice(index, message) for index, message in enumerate(messages)]
        self._record()
        counts = usage(len(self._prompt.tokens), self._choices)
        content = {**self._head, "object": "chat.completion", "choices": found, "usage": counts}
        if self._body.prompt_logprobs is not None:
            scored = self._choices[0].prompt_logprobs
            content["prompt_logprobs"] = self._chat.texts.prompt(self._prompt.tokens, scored)
        return answer(content)

    def _whole_choice(self, index: int, message: _Message) -> dict[str, Any]:
        logprobs = self._chat.texts.chat(*_unzipped(message.logprobs)) if self._body.logprobs else None
        calls = message.calls(self._prompt.call_id)
        content: dict[str, Any] = {"role": "assistant", "content": message.text if message.text or not calls else None}
        if message.reasoning:
            content["reasoning_content"] = message.reasoning
        if calls:
            content["tool_calls"] = calls
        content["refusal"] = None
        return {"index": index, "message": content, "logprobs": logprobs, "finish_reason": message.finish}

    async def stream(self) -> AsyncIterator[bytes]:
        """The parts of all texts, as they come."""
        options = self._body.stream_options
        counted = options is not None and options.include_usage
        head = {**self._head, "object": "chat.completion.chunk"}
        tail = {"usage": None} if counted else {}
        for index in range(len(self._choices)):
            delta = {"role": "assistant", "content": ""}
            yield event({**head, "choices": [self._part(index, delta, None, None)], **tail})
        held = [_Held() for _ in self._choices]  # log probabilities of tokens whose text is held back
        async with aclosing(merged(self._choices, self._chat.language.metrics)) as parts:  # type: ignore[type-var]
            async for index, part in parts:
                held[index].tokens += zip(part.tokens, part.logprobs, strict=False)
                deltas = [each for one in part.events if (each := _delta(one, self._prompt.call_id))]
                if part.finish is not None and held[index].tokens and not deltas:
                    deltas = [{"content": ""}]
                for place, delta in enumerate(deltas):
                    logprobs = None
                    if place == 0 and self._body.logprobs:
                        logprobs = self._chat.texts.chat(*_unzipped(held[index].tokens))
                        held[index].tokens = []
                    yield event({**head, "choices": [self._part(index, delta, logprobs, None)], **tail})
                if part.finish is not None:
                    yield event({**head, "choices": [self._part(index, {}, None, part.finish)], **tail})
        self._record()
        if counted:
            yield event({**head, "choices": [], "usage": usage(len(self._prompt.tokens), self._choices)})
        yield DONE

    def _part(
        self, index: int, delta: dict[str, Any], logprobs: dict[str, Any] | None, finish: FinishReason | None
    ) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}

    def _record(self) -> None:
        record(self._request, self._chat.language.name, len(self._prompt.tokens), self._choices)


@dataclass
class _Held:
    tokens: list[Any] = field(default_factory=list)


@dataclass
class _Message:
    """An answer, as far as it has come."""

    text: str = ""
    reasoning: str = ""
    names: list[str] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)
    finish: FinishReason | None = None

    def add(self, events: Sequence[Event]) -> None:
        for each in events:
            match each:
                case Text(text):
                    self.text += text
                case Reasoning(text):
                    self.reasoning += text
                case CallBegun(_, name):
                    self.names.append(name)
                    self.arguments.append("")
                case CallArguments(index, fragment):
                    self.arguments[index] += fragment

    def calls(self, id_of: Any) -> list[dict[str, Any]]:
        return [
            {"id": id_of(name, index), "type": "function", "function": {"name": name, "arguments": arguments}}
            for index, (name, arguments) in enumerate(zip(self.names, self.arguments, strict=True))
        ]


def _unzipped(pairs: Sequence[Any]) -> tuple[list[int], list[Any]]:
    return [token for token, _ in pairs], [logprobs for _, logprobs in pairs]


def _delta(each: Event, id_of: Any) -> dict[str, Any] | None:
    match each:
        case Text(text):
            return {"content": text} if text else None
        case Reasoning(text):
            return {"reasoning_content": text} if text else None
        case CallBegun(index, name):
            function = {"name": name, "arguments": ""}
            call = {"index": index, "id": id_of(name, index), "type": "function", "function": function}
            return {"tool_calls": [call]}
        case CallArguments(index, fragment) if fragment:
            return {"tool_calls": [{"index": index, "function": {"arguments": fragment}}]}
    return None
