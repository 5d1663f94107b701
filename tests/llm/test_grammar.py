"""Grammars: what compiles, what is refused and how, and that masks and forced tokens keep to them. Needs no device."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.errors import Error, InvalidInputError
from executorch_webgpu.llm import SamplingParams
from executorch_webgpu.llm.grammar import MOST_BYTES, MOST_DEPTH, CompiledGrammar, Grammar, GrammarVocabulary
from executorch_webgpu.llm.grammar_errors import UNSUPPORTED
from executorch_webgpu.llm.grammar_matcher import GrammarMatcher, Mask, MaskRows, _executor
from executorch_webgpu.text.tokenizer import Tokenizer
from tests.llm.unigram import unigram_tokenizer
from tests.text.tiny_vocabulary import BPE_TOKENS, EOS, SPM_TOKENS, USER, write_bpe, write_spm

VOCAB = 300  # rows of a head that has more than the tokenizers have tokens
KINDS = "byte-level", "sentencepiece", "unigram"


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    folder = tmp_path_factory.mktemp("grammar")
    return {
        "byte-level": Tokenizer.from_file(write_bpe(folder / "bpe.gguf")),
        "sentencepiece": Tokenizer.from_file(write_spm(folder / "spm.gguf")),
        "unigram": unigram_tokenizer(),
    }


@pytest.fixture(scope="module")
def vocabularies(tokenizers: dict[str, Tokenizer]) -> dict[str, GrammarVocabulary]:
    return {kind: GrammarVocabulary(tokenizer, VOCAB) for kind, tokenizer in tokenizers.items()}


@pytest.fixture
def vocabulary(vocabularies: dict[str, GrammarVocabulary]) -> GrammarVocabulary:
    return vocabularies["byte-level"]


def tokens_of(mask: Mask) -> list[int]:
    return np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")).tolist()


def walk(matcher: GrammarMatcher, random: np.random.Generator, ends: Sequence[int], most: int = 4000) -> list[int]:
    """Random tokens that masks allow, until the text ends."""
    text: list[int] = []
    while not matcher.done and len(text) < most:
        token = matcher.forced[0] if matcher.forced else int(random.choice(tokens_of(matcher.mask()) or [-1]))
        if token in ends or token < 0:
            return text
        matcher.take(token)
        text.append(token)
    assert matcher.done, "the text does not end"
    return text


def spelled(tokenizer: Tokenizer, tokens: Sequence[int]) -> str:
    return b"".join(tokenizer.token_bytes(token) or b"" for token in tokens).decode()


GRAMMARS = [
    Grammar.regex(r"[0-9]{3}-(ab|cd)+ hello"),
    Grammar.regex(r"(?i)yes|no|\x{e9}+[^a-z]{2}"),
    Grammar.choice(["hello", "hell", 'he said "hello"', "日本\n", "a\\b"]),
    Grammar.json_object(),
    Grammar.json_schema({"enum": ["hello", 12, None, {"hello": [1.5]}]}),
    Grammar.lark('start: "<" NAME ">" body\nNAME: /[a-z]{2,4}/\nbody: "hello" | "(" body ")"'),
    Grammar.lark('start: "call " %json {"type": "integer", "minimum": 7, "maximum": 12} "!"'),
]
PATTERNS = {
    GRAMMARS[0]: r"[0-9]{3}-(ab|cd)+ hello",
    GRAMMARS[1]: r"(?i:yes|no)|é+[^a-z]{2}|É+[^a-z]{2}|[éÉ]+[^a-zA-Z]{2}",
    GRAMMARS[5]: r"<[a-z]{2,4}>\(*hello\)*",
    GRAMMARS[6]: r"call (7|8|9|10|11|12)!",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grammar", GRAMMARS, ids=lambda grammar: grammar.text[:20])
def test_random_walks_keep_to_a_grammar(
    vocabularies: dict[str, GrammarVocabulary], tokenizers: dict[str, Tokenizer], kind: str, grammar: Grammar
) -> None:
    tokenizer, compiled = tokenizers[kind], vocabularies[kind].compile(grammar)
    for seed in range(12):
        text = spelled(
            tokenizer, walk(compiled.matcher(tokenizer.eos_ids), np.random.default_rng(seed), [*tokenizer.eos_ids])
        )
        if grammar in PATTERNS:
            assert re.fullmatch(PATTERNS[grammar], text), text
        elif grammar.text.startswith("start: CHOICE"):
            assert text in ["hello", "hell", 'he said "hello"', "日本\n", "a\\b"]
        else:
            value = json.loads(text)
            assert isinstance(value, dict) or value in ["hello", 12, None]


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_is_allowed_where_the_mask_has_it(
    vocabularies: dict[str, GrammarVocabulary], tokenizers: dict[str, Tokenizer], kind: str
) -> None:
    """Whether masks were made before or not, for end tokens of both sorts, and special ones that a grammar names."""
    tokenizer = tokenizers[kind]
    special = min(t for t in tokenizer.special_ids if tokenizer.token_bytes(t))
    name = (tokenizer.token_bytes(special) or b"").strip(b"\xff").decode()
    grammars = [*GRAMMARS, Grammar.regex(r"[\s\S]*")]
    if name.startswith("<"):
        grammars.append(Grammar.lark(f'start: "a" {name}? /[0-9]+/ {name}'))
    for ends in (tokenizer.eos_ids, (), (special, 70, 71, VOCAB + 5)):
        for seed, grammar in enumerate(grammars):
            compiled, random = vocabularies[kind].compile(grammar), np.random.default_rng(seed)
            masked, unmasked = compiled.matcher(ends), compiled.matcher(ends)
            for _ in range(12):
                assert (masked.forced, masked.done) == (unmasked.forced, unmasked.done)
                if masked.done or not (allowed := tokens_of(masked.mask())):
                    break
                assert [token for token in range(-1, VOCAB) if unmasked.allows(token)] == allowed
                token = int(random.choice(allowed))
                if token in ends:
                    break
                masked.take(token)
                unmasked.take(token)


def test_bodies_of_rules(vocabulary: GrammarVocabulary, tokenizers: dict[str, Tokenizer]) -> None:
    """What a larger grammar embeds is what it is alone, with the same white space and refusals."""
    tokenizer = tokenizers["byte-level"]
    for text in (r"a/b\/[/x]\n", "a\nb\r(/|\\\\)"):
        body = Grammar.regex(text).rule_body
        tokens = walk(vocabulary.compile(Grammar.lark(f"start: {body}")).matcher(()), np.random.default_rng(0), ())
        assert re.fullmatch(text, spelled(tokenizer, tokens))
    schema = Grammar.json_schema({"type": "object", "x-guidance": {"lenient": True, "item_separator": ";"}, "not": {}})
    with pytest.raises(InvalidInputError, match="Unimplemented keys"):
        vocabulary.check(Grammar.lark(f"start: {schema.rule_body}"))
    matcher = vocabulary.compile(Grammar.lark(f"start: {Grammar.json_object().rule_body}")).matcher(())
    for character in "{\n ":
        matcher.take(tokenizer.encode(character, add_special=False)[0])
    assert tokenizer.encode("\n", add_special=False)[0] not in tokens_of(matcher.mask())
    with pytest.raises(InvalidInputError, match="rules of its own"):
        Grammar.lark("start: 'a'").rule_body  # noqa: B018


@pytest.mark.parametrize("kind", KINDS)
def test_what_must_follow_is_known_at_once(
    vocabularies: dict[str, GrammarVocabulary], tokenizers: dict[str, Tokenizer], kind: str
) -> None:
    """As the tokenizer writes it, up to where it could be cut in another way."""
    tokenizer = tokenizers[kind]
    matcher = vocabularies[kind].compile(Grammar.lark('start: "hello 12 hello" /[xy]/ " hello"')).matcher(())
    assert "hello 12 hello".startswith(spelled(tokenizer, matcher.forced)) and len(matcher.forced) >= 3
    text = walk(matcher, np.random.default_rng(0), ())
    assert re.fullmatch("hello 12 hello[xy] hello", spelled(tokenizer, text))
    only = vocabularies[kind].compile(Grammar.choice(["hello"])).matcher(())
    for token in list(only.forced):
        only.take(token)
    assert only.done


def test_end_tokens_may_come_where_the_text_may_end_and_only_there(vocabulary: GrammarVocabulary) -> None:
    letter, ends = BPE_TOKENS.index("a"), {BPE_TOKENS.index(EOS), BPE_TOKENS.index("b"), VOCAB - 1, 10**6}
    compiled = vocabulary.compile(Grammar.regex("[ab]{2,3}"))
    matcher = compiled.matcher(ends)
    assert tokens_of(matcher.mask()) == [letter]  # b ends this text, so it is no letter
    matcher.take(letter)
    matcher.take(letter)
    assert tokens_of(matcher.mask()) == sorted({letter} | ends - {10**6})
    matcher.take(letter)
    assert matcher.done
    without = compiled.matcher(())
    assert tokens_of(without.mask()) == [letter, letter + 1]


def test_special_tokens_come_where_a_grammar_names_them(vocabulary: GrammarVocabulary) -> None:
    end = BPE_TOKENS.index("<|im_end|>")
    matcher = vocabulary.compile(Grammar.lark('start: /[ab]/ <|im_end|> "a"')).matcher([end])
    matcher.take(BPE_TOKENS.index("a"))
    assert matcher.forced[:1] == [end] or tokens_of(matcher.mask()) == [end]
    any_text = vocabulary.compile(Grammar.regex("(?s:.)+")).matcher([end])
    allowed = tokens_of(any_text.mask())
    assert end not in allowed and BPE_TOKENS.index(EOS) not in allowed and BPE_TOKENS.index(USER) in allowed


def test_rows_without_a_token_are_never_allowed(vocabularies: dict[str, GrammarVocabulary]) -> None:
    for kind, tokens in (("byte-level", BPE_TOKENS), ("sentencepiece", SPM_TOKENS)):
        mask = vocabularies[kind].compile(Grammar.regex("(?s:.)+")).matcher(()).mask()
        assert max(tokens_of(mask)) == len(tokens) - 1
    few = GrammarVocabulary(vocabularies["byte-level"]._tokenizer, 200)  # a head with fewer rows than tokens
    assert max(tokens_of(few.compile(Grammar.regex("(?s:.)+")).matcher(()).mask())) < 200


@pytest.mark.parametrize("processors", [1, 8])
def test_many_masks_are_those_of_each(
    vocabulary: GrammarVocabulary, processors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: processors)
    _executor.cache_clear()
    compiled = [vocabulary.compile(grammar) for grammar in GRAMMARS]
    texts, alone = [[c.matcher([2]) for c in compiled * 3] for _ in range(2)]
    random, rows = np.random.default_rng(0), MaskRows()
    for _ in range(20):
        going = [i for i, text in enumerate(texts) if not text.done]
        for i, mask in zip(going, rows.of([texts[i] for i in going]), strict=True):
            texts[i].settle(mask)
            assert tokens_of(mask) == tokens_of(alone[i].mask())
            if (left := [token for token in tokens_of(mask) if token != 2]) and not texts[i].done:
                token = int(random.choice(left))
                texts[i].take(token)
                alone[i].take(token)
    assert (_executor() is None) == (processors == 1)
    _executor.cache_clear()


def test_equal_grammars_are_compiled_once_by_any_thread(vocabulary: GrammarVocabulary) -> None:
    def use(seed: int) -> CompiledGrammar:
        compiled = vocabulary.compile(
            Grammar.json_schema({"type": "array", "items": {"const": "hello"}, "maxItems": 3})
        )
        walk(compiled.matcher([2]), np.random.default_rng(seed), [2])
        return compiled

    first = use(0)
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(use, range(40))) == {first}
    params = SamplingParams(grammar=first)
    assert params.needs_tokens and "grammar" in str(params.host_reason) and hash(params) == hash(params)
    with pytest.raises(InvalidInputError, match="give one of them"):
        SamplingParams(grammar=first, allowed_tokens=lambda new: None)


REFUSED: list[tuple[Any, str]] = [
    ({"type": "string", "format": "foo"}, "Unknown format: foo"),
    ({"type": "foo"}, "Invalid type: foo"),
    ({"type": "string", "pattern": "(?=a)b"}, "look-around.* is not supported at character 1"),
    ({"type": "string", "pattern": "ab(c"}, "unclosed group at character 3"),
    ({"$ref": "#/nowhere"}, "Pointer '/nowhere' does not exist"),
    ({"$ref": "http://example.com/schema"}, "not present in a registry"),
    ({"$ref": "#"}, "no text that the vocabulary can spell keeps to it"),
    ({"type": "integer", "minimum": 5, "maximum": 3}, r"minimum \(5\) is greater than maximum \(3\)"),
    ({"type": "object", "required": ["a"], "additionalProperties": False}, "required property 'a' is unsatisfiable"),
    ({"oneOf": [{"type": "string"}, {"maxLength": 3}]}, "oneOf is supported only where"),
    ({"type": "object", "x-guidance": {"lenient": True}, "not": {}}, r"not supported: not \(at #\)"),
    ({"properties": 1}, "properties must be an object"),
    (False, "describes nothing"),
    ([], "a JSON schema is an object or a boolean, not list"),
    ("{}", "not str"),
    ({"const": float("nan")}, "is no JSON"),
    ({"const": {1}}, "is no JSON"),
]


@pytest.mark.parametrize(("schema", "message"), REFUSED, ids=lambda value: str(value)[:30])
def test_schemas_that_cannot_be(vocabulary: GrammarVocabulary, schema: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        vocabulary.check(Grammar.json_schema(schema))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keyword", sorted(UNSUPPORTED))
def test_keywords_that_are_not_supported_are_refused_by_name(vocabulary: GrammarVocabulary, keyword: str) -> None:
    value: Any = {"$dynamicRef": "#", "$recursiveRef": "#", "dependentRequired": {}}.get(keyword, {})
    schema = {"type": "object", "properties": {"a/b": {"anyOf": [{"type": "null"}, {keyword: value}]}}}
    if keyword == "dependencies":
        schema["$schema"] = "http://json-schema.org/draft-07/schema#"
    if keyword == "$recursiveRef":
        schema["$schema"] = "https://json-schema.org/draft/2019-09/schema"
    with pytest.raises(InvalidInputError) as caught:
        vocabulary.check(Grammar.json_schema(schema))
    assert f"{keyword} (at #/properties/a~1b/anyOf/1)" in str(caught.value)


def test_all_keywords_that_are_not_supported_are_named_at_once(vocabulary: GrammarVocabulary) -> None:
    schema = {
        "type": "object",
        "not": {"required": ["x"]},
        "properties": {"not": {"type": "array", "uniqueItems": True, "items": {"if": {}, "then": {}}}},
        "$defs": {"contains": {"propertyNames": {}}},
    }
    with pytest.raises(InvalidInputError) as caught:
        vocabulary.check(Grammar.json_schema(schema))
    named = re.findall(r"(\S+) \(at", str(caught.value))
    assert named == ["not", "uniqueItems", "if", "then", "propertyNames"]


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        (lambda: Grammar.regex("ab(c"), "the regular expression cannot be used: unclosed group at character 3"),
        (lambda: Grammar.regex(r"\bfoo"), "the regular expression cannot be used: lookarounds not supported"),
        (lambda: Grammar.regex(r"(a)\1"), "backreferences are not supported at character 4"),
        (lambda: Grammar.lark("start: foo"), 'line 1, column 8: unknown name: "foo"'),
        (lambda: Grammar.lark('start: "a"\nx: "b'), "line 2, column 6: lexer error"),
        (lambda: Grammar.lark("start: <|nope|>"), "unknown special token"),
        (lambda: Grammar.lark('root ::= "a"'), "line 1, column 7: Expected token"),
        (lambda: Grammar.lark('start: %json {"not": {}}'), "Unimplemented keys"),
        (lambda: Grammar.lark(""), "a string that is not empty"),
        (lambda: Grammar.regex(3), "a string that is not empty, not 3"),  # type: ignore[arg-type]
        (lambda: Grammar.regex("\ud800"), "not valid Unicode"),
        (lambda: Grammar.choice([]), "at least one"),
        (lambda: Grammar.choice("abc"), "a list of strings"),
        (lambda: Grammar.choice(["a", "\ud800"]), "not valid Unicode"),
    ],
)
def test_grammars_that_cannot_be(vocabulary: GrammarVocabulary, grammar: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        vocabulary.check(grammar())
    assert "\n" not in str(caught.value)


def nested(keyword: str, depth: int, inner: Any) -> Any:
    for _ in range(depth):
        inner = {"type": "array", keyword: inner, "minItems": 1000, "maxItems": 1000}
    return inner


def rows_of(count: int) -> str:
    return "start: r0\n" + "\n".join(f"r{i}: r{i + 1} r{i + 1}" for i in range(count)) + f'\nr{count}: "a"'


EXPLODING = {
    "deep": lambda: Grammar.json_schema(nested("items", MOST_DEPTH + 1, {})),
    "long": lambda: Grammar.lark('start: "' + "a" * MOST_BYTES + '"'),
    "all of any": lambda: Grammar.json_schema(
        {"allOf": [{"anyOf": [{"properties": {f"{i} {j}": {}}} for j in range(4)]} for i in range(12)]}
    ),
    "many properties": lambda: Grammar.json_schema({"properties": {f"p{i}": {} for i in range(20000)}}),
    "forced without end": lambda: Grammar.lark('start: "a" start'),
    "doubled": lambda: Grammar.lark(rows_of(30)),
    "large multiple": lambda: Grammar.json_schema({"type": "integer", "multipleOf": 999999937}),
}
BOUNDED = {
    "items": lambda: Grammar.json_schema(nested("items", 6, {"type": "integer"})),
    "many items": lambda: Grammar.json_schema({"type": "array", "items": {"const": 1}, "minItems": 10**9}),
    "long string": lambda: Grammar.json_schema({"type": "string", "minLength": 10**9}),
    "references": lambda: Grammar.json_schema(
        {"$defs": {f"d{i}": {"properties": {k: {"$ref": f"#/$defs/d{(i + 1) % 30}"} for k in "ab"}} for i in range(30)}}
        | {"type": "object", "$ref": "#/$defs/d0"}
    ),
    "repeats": lambda: Grammar.regex("([ab]*a[ab]{40}){200}"),
    "forced": lambda: Grammar.regex("[ab](a{1000}){1000}"),
    "ambiguous": lambda: Grammar.lark('start: s\ns: s s s | s s | "a"'),
    "many strings": lambda: Grammar.choice([f"string {i}" for i in range(5000)]),
    "enum": lambda: Grammar.json_schema({"enum": [f"string {i}" for i in range(5000)]}),
}


@pytest.mark.parametrize("name", EXPLODING)
def test_grammars_that_explode_are_refused(vocabulary: GrammarVocabulary, name: str) -> None:
    with pytest.raises(InvalidInputError, match="too large|too complex|levels deep|may have") as caught:
        vocabulary.check(EXPLODING[name]())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", BOUNDED)
def test_grammars_that_could_explode_end_or_are_stopped(vocabulary: GrammarVocabulary, name: str) -> None:
    """A text of such a grammar goes on, or is told why it cannot."""
    compiled, random = vocabulary.compile(BOUNDED[name]()), np.random.default_rng(0)
    matcher, count = compiled.matcher([2]), 0
    try:
        while count < 300 and not matcher.done:
            token = matcher.forced[0] if matcher.forced else int(random.choice(tokens_of(matcher.mask())))
            if token == 2:
                break
            matcher.take(token)
            count += 1
    except InvalidInputError as error:
        assert str(error) == "a text cannot go on in its grammar: it is too complex; give a simpler one"
    else:
        assert count > 0


@settings(max_examples=150, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=6),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "type",
                        "enum",
                        "items",
                        "properties",
                        "anyOf",
                        "$ref",
                        "pattern",
                        "minLength",
                        "required",
                        "const",
                        "format",
                        "$defs",
                        "a",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_a_schema_or_is_refused(vocabularies: dict[str, GrammarVocabulary], value: Any) -> None:
    try:
        vocabularies["byte-level"].check(Grammar.json_schema(value))
    except InvalidInputError as error:
        assert "\n" not in str(error)


@settings(max_examples=100, deadline=None)
@given(st.text(min_size=1, max_size=12), st.sampled_from(["regex", "lark", "choice"]))
def test_any_text_is_a_grammar_or_is_refused(vocabularies: dict[str, GrammarVocabulary], text: str, kind: str) -> None:
    try:
        vocabularies["byte-level"].check(Grammar.choice([text]) if kind == "choice" else getattr(Grammar, kind)(text))
    except InvalidInputError as error:
        assert "\n" not in str(error) and kind != "choice"


def test_a_machine_without_llguidance_is_told_which_extra_has_it(
    vocabulary: GrammarVocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    Grammar.json_object()
    with pytest.raises(Error, match=r'pip install "executorch-webgpu\[serve\]"'):
        GrammarVocabulary(vocabulary._tokenizer, VOCAB)


def test_any_tokenizer_says_which_bytes_its_tokens_are(tokenizers: dict[str, Tokenizer], smollm2_gguf: Path) -> None:
    texts = ["Hello  world\n\n\té 日本🙂\x00\u200d", "hello hello", "1 2 hello <tool> wrd"]
    for tokenizer in [*tokenizers.values(), Tokenizer.from_file(smollm2_gguf)]:
        for text in texts:
            tokens = tokenizer.encode("x" + text, add_special=False)
            raw = b"".join(tokenizer.token_bytes(token) or b"" for token in tokens)
            assert raw.decode().lstrip(" ") == tokenizer.decode(tokens).lstrip(" ")
        assert tokenizer.token_bytes(10**6) is None
