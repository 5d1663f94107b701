"""What the two processes of a server say to each other.

The HTTP process sends ``EngineSettings`` first, then requests. Each is known by its ``id``, and what comes back has it.
A token of which there is no more to say, as nearly all are, comes as a tuple ``(id, token)``: it is made and pickled in
the loop that encodes steps, thousands of times a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..llm.grammar import Grammar
from ..llm.sample import SamplingParams
from ..llm.stream import StreamEnd, TokenLogprobs

# -- to the engine process ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Submit:
    """A text to be continued."""

    id: int
    tokens: Sequence[int]
    params: SamplingParams
    ends: frozenset[int]
    grammar: Grammar | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """A text, or embeddings, that nobody wants any more."""

    id: int


@dataclass(frozen=True, slots=True)
class Embed:
    """Token ids of texts whose embeddings are wanted. ``truncate``: long ones are cut."""

    id: int
    texts: Sequence[Sequence[int]]
    truncate: bool


@dataclass(frozen=True, slots=True)
class AskLoad:
    """How busy is the engine?"""

    id: int


# -- from the engine process --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LanguageFacts:
    """Of the language model. Sizes are in tokens."""

    context_len: int
    vocab_size: int
    pool_rows: int
    eos_ids: frozenset[int]


@dataclass(frozen=True, slots=True)
class EncoderFacts:
    """Of the encoder. ``dim``: numbers of an embedding; ``max_tokens``: of one text."""

    dim: int
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The engine process has loaded its programs."""

    adapter: str
    language: LanguageFacts | None
    encoder: EncoderFacts | None


@dataclass(frozen=True, slots=True)
class Refused:
    """Why the engine process could not start, or a request could not be done.

    ``at_fault``: whether the request itself is wrong, so that it fails on any other try.
    """

    id: int
    message: str
    at_fault: bool


@dataclass(frozen=True, slots=True)
class Accepted:
    """A text is in the engine."""

    id: int


@dataclass(slots=True)
class Came:
    """Tokens of a text, in order, and its end. ``cached_tokens``, ``prompt_logprobs``: where there is something new."""

    id: int
    tokens: list[int]
    logprobs: list[TokenLogprobs] | None = None
    cached_tokens: int | None = None
    prompt_logprobs: list[TokenLogprobs] | None = None
    end: StreamEnd | None = None


@dataclass(frozen=True, slots=True)
class Embedded:
    """Embeddings as float32 bytes, in the order of the texts."""

    id: int
    embeddings: bytes


@dataclass(frozen=True, slots=True)
class Load:
    """How busy the engine is, in texts and pages."""

    id: int
    running: int
    waiting: int
    idle_pages: int
    kv_pages: int
