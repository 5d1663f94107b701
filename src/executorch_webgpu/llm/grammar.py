"""Grammars that a text keeps to, compiled by llguidance: JSON of a schema, a regular expression, a Lark grammar.

``GrammarVocabulary`` compiles a ``Grammar`` for the tokens of one tokenizer, and ``SamplingParams(grammar=...)`` takes
what it gives. Needs the extra ``[serve]``.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from ..errors import Error, InvalidInputError
from ..text.grammar_rules import json_rule, with_options
from ..text.tokenizer import Tokenizer
from .grammar_errors import reason_of, unsupported_keywords
from .grammar_matcher import GrammarMatcher

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

MOST_BYTES = 1 << 18  # of a grammar: larger Lark grammars take seconds to read
MOST_DEPTH = 100  # of a schema
_KEPT = 32  # compiled grammars that a vocabulary remembers
_STATES = 1 << 16  # of one text's lexer, each 1 to 2 KB
_MOST_FUEL, _LEAST_FUEL, _FUEL_A_BYTE = 1_000_000, 200_000, 20  # expressions that a lexer may make
_UNESCAPED = re.compile(r"\\.|/|\n|\r", re.DOTALL)  # what a regular expression in a Lark grammar writes in another way
_END_NAME = b"\xff<|end of grammar|>"  # a token that only says that a text may end; the first byte marks special ones
_PROBE = "\x02"  # a character that no token goes on from

_CHOICE = "start: CHOICE\nCHOICE: "

Kind = Literal["json_schema", "regex", "lark"]


@dataclass(frozen=True)
class Grammar:
    """What a text must be, as a whole. Make one by a method below; equal ones are compiled once.

    ``text``: a JSON schema as JSON, a regular expression, or a Lark grammar.
    """

    kind: Kind
    text: str

    def __post_init__(self) -> None:
        try:
            size = len(self.text.encode())
        except UnicodeEncodeError as error:
            raise InvalidInputError("the grammar is not valid Unicode; give it in UTF-8") from error
        if size > MOST_BYTES:
            raise InvalidInputError(f"the grammar has {size} bytes; it may have {MOST_BYTES}, so give a smaller one")

    @property
    def has_rule_body(self) -> bool:
        """Whether it can be a part of a larger Lark grammar, which one with rules of its own cannot."""
        return self.kind != "lark" or self._choices is not None

    @property
    def rule_body(self) -> str:
        """A schema, an expression or a choice as the body of a rule of a larger Lark grammar."""
        if self._choices is not None:
            return self._choices
        if self.kind == "lark":
            raise InvalidInputError("a Lark grammar has rules of its own, so it is no body of a rule")
        if self.kind == "json_schema":
            return json_rule(json.loads(self.text))
        return f"/{_UNESCAPED.sub(_escaped, self.text)}/"

    @property
    def _choices(self) -> str | None:
        """Alternatives of a grammar that ``choice`` made."""
        choices = self.text.removeprefix(_CHOICE)
        return choices if len(choices) < len(self.text) and "\n" not in choices else None

    @staticmethod
    def json_object() -> Grammar:
        """Any JSON object."""
        return Grammar.json_schema({"type": "object"})

    @staticmethod
    def json_schema(schema: Mapping[str, Any] | bool) -> Grammar:
        """JSON that a schema describes, with properties in the schema's order, and white space as people write it.

        Raises InvalidInputError for what is no JSON schema at all; ``GrammarVocabulary.check`` finds the rest.
        """
        if not isinstance(schema, Mapping | bool):
            raise InvalidInputError(f"a JSON schema is an object or a boolean, not {type(schema).__name__}")
        if schema is False:
            raise InvalidInputError("the JSON schema false describes nothing, so no text keeps to it")
        schema = {} if schema is True else schema
        if _deeper_than(schema, MOST_DEPTH):
            raise InvalidInputError(f"the JSON schema is more than {MOST_DEPTH} levels deep; give a flatter one")
        try:
            text = json.dumps(schema, ensure_ascii=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InvalidInputError(f"the JSON schema is no JSON: {error}") from error
        return Grammar("json_schema", text)

    @staticmethod
    def regex(text: str) -> Grammar:
        """What a regular expression matches from beginning to end, in the syntax of Rust's crate regex."""
        return Grammar("regex", _string(text, "a regular expression"))

    @staticmethod
    def lark(text: str) -> Grammar:
        """What a Lark grammar derives from ``start``, in llguidance's dialect: ``<|name|>`` is a special token, and
        ``%json {...}`` embeds a schema."""
        return Grammar("lark", _string(text, "a Lark grammar"))

    @staticmethod
    def choice(strings: Sequence[str]) -> Grammar:
        """One of some strings."""
        if isinstance(strings, str) or not strings or not all(isinstance(each, str) for each in strings):
            raise InvalidInputError("a choice is a list of strings, and at least one")
        if any("\ud800" <= character <= "\udfff" for each in strings for character in each):
            raise InvalidInputError("a choice has a string that is not valid Unicode; give it in UTF-8")
        return Grammar("lark", _CHOICE + " | ".join(map(json.dumps, strings)))


class CompiledGrammar:
    """A grammar for the tokens of one vocabulary, as ``SamplingParams.grammar`` takes it. Many texts may share it.

    ``vocab_size``: of the program whose texts it is for.
    """

    def __init__(self, grammar: Grammar, pristine: LLMatcher, vocabulary: GrammarVocabulary) -> None:
        self.grammar, self.vocab_size = grammar, vocabulary.vocab_size
        self._pristine, self._vocabulary, self._lock = pristine, vocabulary, threading.Lock()

    def matcher(self, ends: Collection[int]) -> GrammarMatcher:
        """Where a new text stands, which any of the tokens ``ends`` ends. Raises InvalidInputError."""
        with self._lock:
            own = self._pristine.deep_copy()
        return GrammarMatcher(own, self.vocab_size, ends, self._vocabulary.special_ids)

    def __repr__(self) -> str:
        return f"CompiledGrammar({self.grammar!r})"


class GrammarVocabulary:
    """Compiles grammars for a tokenizer, and a program whose head has ``vocab_size`` rows. Threads may share it.

    Rows without a token are never drawn. Raises Error where llguidance is not installed.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        _require_llguidance()
        self.vocab_size, self.special_ids = vocab_size, tokenizer.special_ids
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._compiled: OrderedDict[Grammar, CompiledGrammar] = OrderedDict()

    def check(self, grammar: Grammar) -> None:
        """Raises InvalidInputError, which names each keyword of a JSON schema that is not supported, or says what is
        wrong and where; and for a grammar that is too large, or that no text can keep to."""
        self.compile(grammar)

    def compile(self, grammar: Grammar) -> CompiledGrammar:
        """The grammar for these tokens. Raises InvalidInputError like ``check``."""
        with self._lock:
            known = self._compiled.get(grammar)
            if known is not None:
                self._compiled.move_to_end(grammar)
                return known
        compiled = CompiledGrammar(grammar, self._matcher(grammar), self)
        try:
            compiled.matcher(())
        except InvalidInputError as error:
            raise InvalidInputError(
                f"the {_NAMES[grammar.kind]} cannot be used: {str(error).partition(': ')[2]}"
            ) from error
        with self._lock:
            self._compiled[grammar] = compiled
            while len(self._compiled) > _KEPT:
                self._compiled.popitem(last=False)
        return compiled

    def _matcher(self, grammar: Grammar) -> LLMatcher:
        from llguidance import LLMatcher, LLParserLimits

        # A short expression may stand for very long texts, of which no more than a part is forced at once.
        fuel = min(_MOST_FUEL, _LEAST_FUEL + _FUEL_A_BYTE * len(grammar.text))
        limits = LLParserLimits(max_lexer_states=_STATES, initial_lexer_fuel=fuel, verbose_errors=False)
        try:
            matcher = LLMatcher(self._llguidance, _serialized(grammar), log_level=0, limits=limits)
        except ValueError as error:
            raise InvalidInputError(f"the {_NAMES[grammar.kind]} cannot be used: {reason_of(str(error))}") from error
        if not matcher.is_error():
            matcher.compute_bitmask()  # finds out whether any text keeps to it; copies know what this learns
        if not matcher.is_error():
            return matcher
        found = matcher.get_error()
        name = _NAMES[grammar.kind]
        if grammar.kind == "json_schema" and (named := unsupported_keywords(json.loads(grammar.text), found)):
            raise InvalidInputError(f"the {name} has what is not supported: {named}; leave it out")
        raise InvalidInputError(f"the {name} cannot be used: {reason_of(found)}")

    @cached_property
    def _llguidance(self) -> LLTokenizer:
        from llguidance import LLTokenizer

        return LLTokenizer(_Vocabulary(self._tokenizer, self.vocab_size))


class _Vocabulary:
    """A tokenizer as llguidance takes one: the bytes of all tokens, and a function from text to tokens.

    One token more than the program has, whose bit in a mask says that the text may end.
    """

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        self.tokens = [tokenizer.token_bytes(index) or b"" for index in range(vocab_size)] + [_END_NAME]
        self.eos_token_id = vocab_size
        self._special = frozenset(index for index in tokenizer.special_ids if index < vocab_size)
        self.special_token_ids = [index for index in sorted(self._special) if self.tokens[index]] + [vocab_size]
        self._longest: dict[bytes, int] = {}

    def __call__(self, text: str) -> list[int]:
        """Tokens whose bytes are the text's, as the tokenizer cuts it in the middle of others. Never raises."""
        wanted = text.encode()
        found = self._tokenizer.encode(text, add_special=False)
        if self._bytes(found) == wanted:
            return found
        # Some tokenizers put a space before a text.
        found = self._tokenizer.encode(_PROBE + text, add_special=False)
        for cut in range(len(found)):
            if self._bytes(found[cut:]) == wanted:
                return found[cut:]
        return self._greedy(wanted)

    def _bytes(self, tokens: Sequence[int]) -> bytes:
        most = self.eos_token_id
        return b"".join(self.tokens[t] if t < most and t not in self._special else b"" for t in tokens)

    def _greedy(self, wanted: bytes) -> list[int]:
        """The longest token at each place; nothing from where no token goes on."""
        if not self._longest:
            self._longest = {raw: i for i, raw in enumerate(self.tokens[:-1]) if raw and i not in self._special}
            self._most = max(map(len, self._longest), default=0)
        found, place = [], 0
        while place < len(wanted):
            ends = range(min(len(wanted), place + self._most), place, -1)
            end = next((end for end in ends if wanted[place:end] in self._longest), None)
            if end is None:
                break
            found.append(self._longest[wanted[place:end]])
            place = end
        return found


_NAMES: dict[Kind, str] = {"json_schema": "JSON schema", "regex": "regular expression", "lark": "grammar"}


def _serialized(grammar: Grammar) -> str:
    """The grammar in llguidance's own form."""
    from llguidance import LLMatcher

    match grammar.kind:
        case "json_schema":
            return str(LLMatcher.grammar_from_json_schema(json.dumps(with_options(json.loads(grammar.text)))))
        case "regex":
            return str(LLMatcher.grammar_from_regex(grammar.text))
        case "lark":
            return str(LLMatcher.grammar_from_lark(grammar.text))


def _escaped(found: re.Match[str]) -> str:
    return {"/": r"\/", "\n": r"\n", "\r": r"\r"}.get(found[0], found[0])


def _require_llguidance() -> None:
    try:
        import llguidance  # noqa: F401
    except ImportError as error:
        raise Error('grammars need llguidance: pip install "executorch-webgpu[serve]"') from error


def _string(text: object, what: str) -> str:
    if not isinstance(text, str) or not text:
        raise InvalidInputError(f"{what} is a string that is not empty, not {text!r:.100}")
    return text


def _deeper_than(value: object, depth: int) -> bool:
    """Whether lists and objects stand in one another more than ``depth`` times."""
    level = [value]
    for _ in range(depth + 1):
        if not level:
            return False
        inner: list[object] = []
        for each in level:
            if isinstance(each, Mapping):
                inner += each.values()
            elif isinstance(each, list | tuple):
                inner += each
        level = list({id(each): each for each in inner if isinstance(each, Mapping | list | tuple)}.values())
    return bool(level)
