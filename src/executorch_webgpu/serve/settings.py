"""What a server is made with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..runtime import LoadOptions


@dataclass(frozen=True)
class EngineSettings:
    """The engine process: what it loads, where, and how much runs at once.

    ``program``: a language model's ``.pte``, with its tokenizer inside unless ``tokenizer`` names a file;
    ``embeddings``: an encoder's. At least one of them. ``engine``, ``adapter``: as ``Runtime.get`` takes them.
    ``loading``: of both programs. ``sizes``: arguments of ``llm.Engine`` beside the program (``kv_pages``,
    ``page_rows``, ``max_rows``, ``max_sequences``, ``steps_in_flight``). ``speculate``: "prompt-lookup", or the path of
    a smaller program with the same vocabulary.
    """

    program: str | None = None
    embeddings: str | None = None
    engine: str | None = None
    adapter: int | str | None = None
    loading: LoadOptions = field(default_factory=LoadOptions)
    sizes: dict[str, Any] = field(default_factory=dict)
    speculate: str | None = None
    tokenizer: str | None = None


@dataclass(frozen=True)
class ServerSettings:
    """What the HTTP process knows. ``name``, ``embeddings_name``: what ``/v1/models`` calls the models.

    ``max_prompt_tokens``: longer prompts are refused; None for what the context holds. ``max_choices``: the most texts
    that one request may ask for. ``page``: whether the chat page is served at "/".
    """

    engine: EngineSettings
    name: str = "model"
    embeddings_name: str = "embeddings"
    max_prompt_tokens: int | None = None
    max_choices: int = 128
    page: bool = True
