"""Render a model's chat template: Jinja source that turns messages into the text the model was trained on.

The environment follows the Hugging Face convention (sandbox, trimmed blocks, loop controls, ``tojson``,
``raise_exception``, ``strftime_now``, ``{% generation %}``), so that templates written for it run unchanged.
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


def user_message(prompt: str, system: str | None = None) -> list[dict[str, str]]:
    """One turn: the user's message, after the system's if there is one."""
    first = [] if system is None else [{"role": "system", "content": system}]
    return [*first, {"role": "user", "content": prompt}]


def encode_chat(tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]]) -> list[int]:
    """Token ids of a conversation, up to and with the start of the assistant's answer.

    Raises InvalidInputError when the tokenizer has no chat template, or when that refuses the messages.
    """
    settings = tokenizer.settings
    if settings.chat_template is None:
        raise InvalidInputError("the tokenizer has no chat template; use a plain prompt, or an instruction-tuned model")
    text = render_chat(settings.chat_template, messages, bos_token=settings.bos_token, eos_token=settings.eos_token)
    return tokenizer.encode(text, parse_special=True)


def render_chat(
    source: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool = True,
    bos_token: str = "",
    eos_token: str = "",
    **variables: Any,
) -> str:
    """The template's text for these messages (each with "role" and "content").

    ``variables`` (such as ``tools``) are handed to the template as they are. Raises InvalidInputError with
    the template's own words when it is malformed or calls ``raise_exception``.
    """
    try:
        return _compile(source).render(
            messages=list(messages),
            add_generation_prompt=add_generation_prompt,
            bos_token=bos_token,
            eos_token=eos_token,
            **variables,
        )
    except Exception as error:  # a template is a program of somebody else's: it may raise anything
        raise InvalidInputError(f"the chat template does not take these messages: {error}") from error


class _Generation(Extension):
    """``{% generation %}…{% endgeneration %}`` marks the assistant's words for training; here, its body."""

    tags = {"generation"}  # noqa: RUF012 (declared this way by jinja2)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@lru_cache(maxsize=8)
def _compile(source: str) -> Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
    )
    # Jinja's own tojson escapes for HTML, which would change the prompt.
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment.from_string(source)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)
