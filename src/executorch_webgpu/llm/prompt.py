"""What a prompt of tokens has to be, for whatever continues it."""

from __future__ import annotations

import operator
from collections.abc import Sequence

from ..errors import InvalidInputError


def integers(tokens: Sequence[int]) -> list[int]:
    """Tokens as Python's integers. Raises InvalidInputError for what is none."""
    try:
        return [operator.index(token) for token in tokens]
    except TypeError as error:
        raise InvalidInputError(f"a prompt is a list of integers, which tokens are: {error}") from error


def checked_prompt(tokens: Sequence[int], context_len: int, vocab_size: int) -> list[int]:
    """The tokens of a prompt. Raises InvalidInputError where it is empty or longer than the context, and for what is no
    token of the vocabulary."""
    prompt = integers(tokens)
    if not prompt:
        raise InvalidInputError("the prompt is empty: give at least one token")
    if len(prompt) > context_len:
        raise InvalidInputError(f"the prompt has {len(prompt)} tokens, but the context has room for {context_len}")
    if bad := [token for token in prompt if not 0 <= token < vocab_size]:
        raise InvalidInputError(
            f"token {bad[0]} is not in the vocabulary of {vocab_size} tokens, 0 to {vocab_size - 1}"
        )
    return prompt
