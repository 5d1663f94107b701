"""Special tokens that a user typed stay text: only those that a chat template writes itself become tokens.

What a template writes and what it copies from messages is one text in the end. So it is rendered once more with one
character of each typed special token replaced by a stand-in, a private-use character that occurs nowhere else. What
then still reads as a special token is the template's. Lengths, white space and letters around stay the same, so
templates that trim, slice or compare write the same text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import tokenizers

from ..errors import InvalidInputError
from .tokenizer import Tokenizer

PRIVATE_USE = range(0xE000, 0xF900)


@dataclass(frozen=True)
class Aliased:
    """A tokenizer that knows special tokens by an alias only, to which their own text is ordinary. ``alias_of``: the
    alias by that text. ``id_of``: the real id of an added token by its id there."""

    backend: tokenizers.Tokenizer
    alias_of: Mapping[str, str]
    id_of: Mapping[int, int]


class Written(str):
    """Text in a message that is not typed: written here, in a model's own format. Special tokens in it that ``marks``
    names are tokens, as those of a template are, unless one of the texts that were put into it, ``typed``, has any."""

    marks: frozenset[str]
    typed: tuple[str, ...]

    @classmethod
    def of(cls, text: str, marks: Iterable[str], typed: Iterable[str]) -> Written:
        """The text, with what is said above."""
        written = cls(text)
        written.marks, written.typed = frozenset(marks), tuple(typed)
        return written

    def is_trusted(self, special: Iterable[str]) -> bool:
        """Whether all special tokens in it are marks."""
        here = [token for token in special if token in self]
        return self.marks.issuperset(here) and not any(token in text for text in self.typed for token in here)


_ALIASED: WeakKeyDictionary[Tokenizer, dict[tuple[str, str], Aliased]] = WeakKeyDictionary()


@dataclass(frozen=True)
class TypedText:
    """Variables of a template that hold the text of special tokens.

    ``hidden``: the variables with stand-ins. ``special``: all special tokens that may occur, the longest first.
    ``stand_ins``: stand-in by the character that it stands for. ``marks``: two characters that
    occur nowhere, for aliases.
    """

    tokenizer: Tokenizer
    hidden: Mapping[str, Any]
    special: tuple[str, ...]
    stand_ins: Mapping[str, str]
    marks: tuple[str, str]

    @classmethod
    def of(cls, tokenizer: Tokenizer, variables: Mapping[str, Any]) -> TypedText | None:
        """None where no text holds a special token, which is nearly always."""
        found = list(strings(variables))
        # A template writes white space as text, so a token of nothing else is none of its marks.
        special = _special(tokenizer.backend)
        asked = [text for text in found if not (isinstance(text, Written) and text.is_trusted(special))]
        typed = [token for token in special if any(token in text for text in asked)]
        if not typed:
            return None
        chosen = sorted({token[_hidden_at(token)] for token in typed})
        seen = set().union(*found, *special)
        # A stand-in may be written as an escape by ``tojson``, and that must not be in the text, either.
        free = (chr(code) for code in PRIVATE_USE)
        unused = [c for c in free if c not in seen and not any(_escaped(c) in text for text in found)]
        if len(unused) < len(chosen) + 2:
            raise InvalidInputError("the messages use all of Unicode's private-use characters: leave some of them out")
        stand_ins = dict(zip(chosen, unused[2:], strict=False))

        def hide(text: str) -> str:
            trusted = isinstance(text, Written) and text.is_trusted(special)
            return text if trusted else _hide(text, typed, stand_ins)

        hidden = _map_strings(variables, hide)
        return cls(tokenizer, hidden, special, stand_ins, (unused[0], unused[1]))

    def is_template_only(self, text: str, hidden: str) -> bool:
        """Whether the special tokens in ``text`` are just the template's: it may drop what was typed."""
        return self._found(text) == self._found(hidden)

    def encode(self, hidden: str) -> list[int]:
        """Token ids of what the template made of ``hidden``."""
        special = [token for token in self.special if token in hidden]
        aliased = _aliased(self.tokenizer, self.marks)
        text = _any_of(special).sub(lambda match: aliased.alias_of[match[0]], hidden) if special else hidden
        for original, stand_in in self.stand_ins.items():
            text = text.replace(stand_in, original).replace(_escaped(stand_in), original)
        ids: list[int] = aliased.backend.encode_batch_fast([text], add_special_tokens=False)[0].ids
        return [aliased.id_of.get(index, index) for index in ids]

    def _found(self, text: str) -> list[str]:
        special = [token for token in self.special if token in text]
        return _any_of(special).findall(text) if special else []


def _aliased(tokenizer: Tokenizer, marks: tuple[str, str]) -> Aliased:
    """The tokenizer with aliases, which is made once: that takes as long as loading it."""
    made = _ALIASED.setdefault(tokenizer, {})
    if marks not in made:
        made[marks] = _make_aliased(tokenizer.backend, marks)
    return made[marks]


def _make_aliased(backend: tokenizers.Tokenizer, marks: tuple[str, str]) -> Aliased:
    pipeline = json.loads(backend.to_str())
    pipeline["post_processor"] = None
    added = [(token["id"], token) for token in pipeline["added_tokens"]]
    alias_of = {}
    for index, token in added:
        if token["special"] and not token["content"].isspace():
            alias_of[token["content"]] = f"{marks[0]}{index}{marks[1]}"
            token["content"] = alias_of[token["content"]]
    aliased = tokenizers.Tokenizer.from_str(json.dumps(pipeline))
    ids = {aliased.token_to_id(token["content"]): index for index, token in added}
    return Aliased(aliased, alias_of, {index: original for index, original in ids.items() if index is not None})


def _special(backend: tokenizers.Tokenizer) -> tuple[str, ...]:
    added = backend.get_added_tokens_decoder().values()
    special = {token.content for token in added if token.special and not token.content.isspace()}
    return tuple(sorted(special, key=lambda token: (-len(token), token)))


def _hide(text: str, typed: list[str], stand_ins: Mapping[str, str]) -> str:
    """The text with a stand-in in every special token, also in those that remain after others are hidden."""
    while here := [token for token in typed if token in text]:
        text = _any_of(here).sub(lambda match: _hide_one(match[0], stand_ins), text)
    return text


def _hide_one(token: str, stand_ins: Mapping[str, str]) -> str:
    at = _hidden_at(token)
    return token[:at] + stand_ins[token[at]] + token[at + 1 :]


def _hidden_at(token: str) -> int:
    """Position of the character that a stand-in replaces: a letter, which escapes do not change, else no space."""
    letters = (at for at, character in enumerate(token) if character.isalnum())
    return next(letters, next(at for at, character in enumerate(token) if not character.isspace()))


def _any_of(special: list[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, special)))


def _escaped(character: str) -> str:
    return json.dumps(character)[1:-1]


def strings(value: Any) -> Iterator[str]:
    """All strings in a variable, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from strings(key)
            yield from strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from strings(item)


def _map_strings(value: Any, change: Any) -> Any:
    """The variable with every string changed, keys included."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {_map_strings(key, change): _map_strings(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_map_strings(item, change) for item in value)
    return value
