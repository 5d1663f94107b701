"""Render a model's chat template: Jinja source that turns messages into the text the model was trained on.

The environment and the variables follow the Hugging Face convention (sandbox, trimmed blocks, loop controls,
``tojson``, ``raise_exception``, ``strftime_now``, ``{% generation %}``), so that templates for it run unchanged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ..errors import InvalidInputError
from .tokenizer import Tokenizer
from .typed_text import TypedText

# Names that a message's reasoning goes by; templates read the first, and those of gpt-oss the second.
REASONING = ("reasoning_content", "thinking", "reasoning")


def user_message(prompt: str, system: str | None = None) -> list[dict[str, str]]:
    """One turn: the user's message, after the system's if there is one."""
    first = [] if system is None else [{"role": "system", "content": system}]
    return [*first, {"role": "user", "content": prompt}]


def encode_chat(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, Any]],
    *,
    parse_special: bool = False,
    add_generation_prompt: bool = True,
    **variables: Any,
) -> list[int]:
    """Token ids of a conversation, up to and with the start of the assistant's answer if ``add_generation_prompt``.

    ``variables`` (such as ``tools``) are handed to the template. Nothing is put before or after what it writes, BOS
    included: it writes that itself where the model wants it. A special token's text in a message, a tool or another
    variable is text like any other: only the template's own become special tokens, unless ``parse_special``.
    Raises InvalidInputError when the tokenizer has no chat template, or when that refuses the messages.
    """
    settings = tokenizer.settings
    if settings.chat_template is None:
        raise InvalidInputError("the tokenizer has no chat template; use a plain prompt, or an instruction-tuned model")
    source, named = settings.chat_template, settings.special_tokens

    def render(given: Mapping[str, Any]) -> str:
        return render_chat(source, **{**named, **given, "add_generation_prompt": add_generation_prompt})

    given = {"messages": messages, **variables}
    text = render(given)
    typed = None if parse_special else TypedText.of(tokenizer, given)
    if typed is not None:
        hidden = render(typed.hidden)
        if not typed.is_template_only(text, hidden):
            return typed.encode(hidden)
    return tokenizer.encode(text, parse_special=True, add_special=False)


def render_chat(
    source: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool = True,
    tools: Sequence[Any] | None = None,
    documents: Sequence[Any] | None = None,
    keep_none: bool = False,
    **variables: Any,
) -> str:
    """The template's text for these messages (each with "role" and "content").

    ``variables`` (such as ``bos_token``) are handed to the template as they are; those that are not given are
    undefined there. ``keep_none``: a message's content that is None is None there, too, and not left out. Raises
    InvalidInputError with the template's own words when it is malformed or calls ``raise_exception``.
    """
    try:
        return _compile(source).render(
            **{
                **variables,
                "messages": [_message(message, keep_none) for message in messages],
                "tools": tools,
                "documents": documents,
                "add_generation_prompt": add_generation_prompt,
            }
        )
    except Exception as error:  # a template is a program of another author: it may raise anything
        raise InvalidInputError(f"the chat template does not take these messages: {error}") from error


def _message(message: Mapping[str, Any], keep_none: bool) -> dict[str, Any]:
    """A message as templates expect it: without keys that hold None, reasoning under the names that they read."""
    stated = {key: value for key, value in message.items() if value is not None or (keep_none and key == "content")}
    reasoning = next((stated[name] for name in REASONING if name in stated), None)
    return stated if reasoning is None else {"thinking": reasoning, **stated, "reasoning_content": reasoning}


class _Generation(Extension):
    """``{% generation %}…{% endgeneration %}`` marks the assistant's words for training; here, its body."""

    tags = {"generation"}  # noqa: RUF012 (declared this way by jinja2)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        # A scope of its own, as where it is tracked: what is set inside is not seen after it.
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Any) -> str:
        return str(caller())


@lru_cache(maxsize=8)
def _compile(source: str) -> Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
    )
    # Jinja's own tojson escapes for HTML, which would change the prompt.
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda format: datetime.now().strftime(format)
    return environment.from_string(source)


def _to_json(
    x: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)
