"""``POST /v1/responses``: the same texts as chat completions, as items and typed events."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from .answer import ERROR_EVENT
from .chat import begin
from .chat_prompt import ChatPrompt, chat_prompt
from .choice import Choice, FinishReason
from .errors import ApiError
from .http import EventStream, answer, event, new_id, read, to_json
from .language import Language
from .response_items import ItemWriter
from .responses_requests import ResponsesRequest, Turns, chat_request, input_items
from .usage import record, usage

# Responses that ``previous_response_id`` may name, and the bytes of their conversations; the oldest go first.
KEPT, KEPT_BYTES = 1000, 64 * 2**20


@dataclass(frozen=True)
class Kept:
    """A response, and the items of the conversation up to its end. ``size``: of both as JSON, in bytes."""

    response: Mapping[str, Any]
    items: Sequence[Mapping[str, Any]]
    size: int


class Responses:
    """The routes. Responses are kept in memory, unless ``store`` is false."""

    def __init__(self, language: Language) -> None:
        self.language = language
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._bytes = 0

    async def endpoint(self, request: Request) -> Response:
        """Answer a request."""
        body = await read(request, ResponsesRequest)
        self.language.check_model(body.model)
        earlier = body.previous_response_id
        before = () if earlier is None else self._find(earlier, "previous_response_id").items
        turns = Turns.of(body, before)
        with turns.naming_items():
            chat = chat_request(body, turns)
            prompt = await chat_prompt(self.language, chat)
        (choice,) = await begin(self.language, chat, prompt)
        reply = _Reply(self, request, body, prompt, choice, [*before, *input_items(body)])
        return EventStream(reply.stream(), [choice], self.language.metrics) if body.stream else await reply.whole()

    async def stored(self, request: Request) -> Response:
        """``GET`` and ``DELETE /v1/responses/ID``."""
        name = request.path_params["id"]
        kept = self._find(name, "id")
        if request.method == "DELETE":
            self._bytes -= self._kept.pop(name).size
            return answer({"id": name, "object": "response.deleted", "deleted": True})
        return answer(kept.response)

    def keep(self, response: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> None:
        """Remember a response."""
        size = len(to_json([response, items]))
        self._kept[response["id"]] = Kept(response, items, size)
        self._bytes += size
        while len(self._kept) > KEPT or self._bytes > KEPT_BYTES:
            self._bytes -= self._kept.popitem(last=False)[1].size

    def _find(self, name: str, param: str) -> Kept:
        if name not in self._kept:
            message = f"there is no response {name}: this server keeps the latest {KEPT}, until it stops"
            raise ApiError(404, message, param, "response_not_found")
        return self._kept[name]


class _Reply:
    """What a request gets, at once or in events."""

    def __init__(
        self,
        route: Responses,
        request: Request,
        body: ResponsesRequest,
        prompt: ChatPrompt,
        choice: Choice,
        items: Sequence[Mapping[str, Any]],
    ) -> None:
        self._route, self._request, self._body, self._prompt = route, request, body, prompt
        self._choice, self._items = choice, items
        self._id, self._created = new_id("resp").replace("-", "_"), time.time()
        self._writer = ItemWriter(prompt.call_id)
        self._events = 0  # told so far

    async def whole(self) -> Response:
        """The response, when it has ended."""
        finish: FinishReason | None = None
        async with aclosing(self._choice.parts(self._route.language.metrics)) as parts:  # type: ignore[type-var]
            async for part in parts:
                for _ in self._writer.write(part.events):
                    pass
                finish = part.finish
        for _ in self._writer.finish(finish == "length"):
            pass
        return answer(self._finished(finish))

    async def stream(self) -> AsyncIterator[bytes]:
        """The events of the response, as they come."""
        setattr(self._request.state, ERROR_EVENT, self._failed)
        yield self._event("response.created", {"response": self._response("in_progress")})
        yield self._event("response.in_progress", {"response": self._response("in_progress")})
        finish: FinishReason | None = None
        async with aclosing(self._choice.parts(self._route.language.metrics)) as parts:  # type: ignore[type-var]
            async for part in parts:
                for name, content in self._writer.write(part.events):
                    yield self._event(name, content)
                finish = part.finish
        for name, content in self._writer.finish(finish == "length"):
            yield self._event(name, content)
        response = self._finished(finish)
        yield self._event(f"response.{response['status']}", {"response": response})

    def _event(self, name: str, content: Mapping[str, Any]) -> bytes:
        self._events += 1
        return event({"type": name, "sequence_number": self._events - 1, **content}, name)

    def _failed(self, error: ApiError) -> bytes:
        """The last event, if something goes wrong. Its codes are few; the message says more."""
        code = "rate_limit_exceeded" if error.status == 429 else "server_error"
        failed = {**self._response("failed"), "error": {"code": code, "message": error.message}}
        return self._event("response.failed", {"response": failed})

    def _finished(self, finish: FinishReason | None) -> dict[str, Any]:
        """The response at its end, which is kept."""
        record(self._request, self._route.language.name, len(self._prompt.tokens), [self._choice])
        response = self._response("incomplete" if finish == "length" else "completed")
        if self._body.store is not False:
            self._route.keep(response, [*self._items, *self._writer.items])
        return response

    def _response(self, status: str) -> dict[str, Any]:
        body, ended = self._body, status in ("completed", "incomplete")
        form = None if body.text is None or body.text.format is None else body.text.format
        reasoning = body.reasoning
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata or {},
            "model": self._route.language.name,
            "output": list(self._writer.items),
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": body.previous_response_id,
            "reasoning": {"effort": None if reasoning is None else reasoning.effort, "summary": None},
            "store": body.store is not False,
            "temperature": body.temperature,
            "text": {"format": {"type": "text"} if form is None else form.model_dump(by_alias=True, exclude_none=True)},
            "tool_choice": body.tool_choice or "auto",
            "tools": body.tools or [],
            "top_p": body.top_p,
            "truncation": body.truncation or "disabled",
            "usage": self._usage() if ended else None,
            "user": body.user,
        }

    def _usage(self) -> dict[str, Any]:
        counts = usage(len(self._prompt.tokens), [self._choice])
        return {
            "input_tokens": counts["prompt_tokens"],
            "input_tokens_details": counts["prompt_tokens_details"],
            "output_tokens": counts["completion_tokens"],
            "output_tokens_details": counts["completion_tokens_details"],
            "total_tokens": counts["total_tokens"],
        }
