"""How byte-level BPE vocabularies of GGUF files cut text before merging, by llama.cpp's names (``tokenizer.ggml.pre``).

Files hold a name instead of the patterns. Every name that llama.cpp knows is here, with the patterns that it uses for
it, or with the reason why it is not.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InvalidInputError


@dataclass(frozen=True)
class PreTokenizer:
    """How a byte-level BPE cuts text before merging: each pattern isolates its matches within the last one's
    pieces. ``whole_words``: a piece that is a token as it stands is not merged. ``add_bos``: unless said."""

    patterns: tuple[str, ...]
    whole_words: bool = False
    add_bos: bool = False


_SHORT = r"'(?:[sS]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])"
_ENDS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def _words(digits: str, *, short: str = rf"(?:{_SHORT})|", ends: str = _ENDS) -> str:
    """Contractions, words with the sign before them, digits, then signs and white space."""
    return rf"{short}[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}|{ends}"


def _cased(letters: str, digits: str, *, short: str) -> str:
    """Words cut where small letters are followed by capitals; letters without case may stand in both parts."""
    lead, upper, lower = r"[^\r\n\p{L}\p{N}]?", rf"(?:(?={letters})[^a-z])", rf"(?:(?={letters})[^A-Z])"
    ends = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    return rf"{lead}{upper}*{lower}+{short}|{lead}{upper}+{lower}*{short}|{digits}|{ends}"


_ASCII_SIGNS = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"
_SIGN_WORDS = _ASCII_SIGNS + r"[A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+"
_SPACES = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_CJK = r"[\x{4e00}-\x{9fa5}\x{3040}-\x{309f}\x{30a0}-\x{30ff}]+"
_ASIAN = r"(?:(?!\s)[\x{0800}-\x{9fa5}\x{ac00}-\x{d7ff}])+"  # that block has white space, too
_DEEPSEEK_LLM_LETTERS = (
    "[A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373"
    "\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481"
    "\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b"
    "\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b"
    "\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb"
    "\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128"
    "\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4"
    "\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf"
    "\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3"
    "\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df"
    "\U0001e900-\U0001e943]"
)
_LLAMA3, _ONE_DIGIT = _words(r"\p{N}{1,3}"), _words(r"\p{N}")
_DIGITS_THEN_GPT2 = (r"\p{N}", _GPT2)
_DEEPSEEK3 = (r"\p{N}{1,3}", _CJK, _SIGN_WORDS + r"[\r\n]*" + _SPACES)
_BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
_GPT4O = _cased(r"\p{L}", r"\p{N}{1,3}", short=rf"(?:{_SHORT})?")
_HALVES = "|".join(rf"\s{{{count}}}(?!\S)" for count in (512, 256, 128, 64, 32, 16, 8, 4))
_MARKED = rf"(?:{_SHORT})|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*"
_PHRASES = (
    rf"(?:{_SHORT})|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
)
_KINDS: dict[PreTokenizer, tuple[str, ...]] = {
    PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")): ("default",),
    PreTokenizer((_GPT2,)): (
        *("gpt-2", "phi-2", "jina-es", "jina-de", "gigachat", "jina-v2-es", "jina-v2-de", "a.x-4.0", "mellum"),
        *("modern-bert", "mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4"),
        *("jina-v1-en", "jina-v2-code", "roberta-bpe"),
    ),
    PreTokenizer(_DIGITS_THEN_GPT2): (
        *("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"),
    ),
    PreTokenizer((_LLAMA3,)): ("dbrx", "smaug-bpe", "chatglm-bpe"),
    PreTokenizer((_LLAMA3,), whole_words=True): ("glm4", "glm5"),
    PreTokenizer((_LLAMA3,), whole_words=True, add_bos=True): (
        *("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"),
    ),
    PreTokenizer((r"\p{N}{1,3}", _words(r"\p{N}+")), whole_words=True): ("minicpm5",),
    PreTokenizer((_ONE_DIGIT,)): (
        *("qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2", "hunyuan", "solar-open", "grok-2"),
    ),
    PreTokenizer((r"[^\n]+|[\n]+", _ONE_DIGIT)): ("laguna",),
    PreTokenizer((_words(r"\p{N}", short=""),)): ("ufakzeka",),
    PreTokenizer((_words(r"\p{N}", ends=r" ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"),)): ("seed-coder",),
    PreTokenizer((_words(r"\p{N}", ends=r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"),)): (
        *("bailingmoe", "bailingmoe2", "llada-moe"),
    ),
    PreTokenizer(
        (_words(r"\p{N}{1,3}", ends=rf" ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|{_HALVES}|\s{{1,2}}(?!\S)|\s"),)
    ): ("jais-2",),
    PreTokenizer((_MARKED + _SPACES,)): ("qwen35",),
    PreTokenizer((_PHRASES,)): ("exaone-moe",),
    PreTokenizer(_DEEPSEEK3): ("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"),
    PreTokenizer((r"\p{N}{1,3}", _CJK, _SIGN_WORDS + r"|[\r\n]|\s+(?!\S)|\s+", r"\p{N}")): ("spark2_5",),
    PreTokenizer(
        (
            r"[\r\n]",
            rf"\s?{_DEEPSEEK_LLM_LETTERS}+",
            r"\s?[!-/:-~！-／：-～‘-‟、。]+",
            r"\s+$",
            _ASIAN,
            r"\p{N}+",
        )
    ): ("deepseek-llm",),
    PreTokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _ASIAN, r"\p{N}")): ("deepseek-coder",),
    PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, r"[0-9][0-9][0-9]")): ("falcon",),
    PreTokenizer((_BLOOM,)): ("poro-chat", "bloom", "gpt3-finnish"),
    PreTokenizer((_BLOOM, r"\p{N}")): ("viking",),
    PreTokenizer((_cased(r"\p{L}", r"\p{N}", short=""),), whole_words=True, add_bos=True): ("tekken",),
    PreTokenizer((_GPT4O,)): ("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"),
    PreTokenizer((_cased(r"[\p{L}\p{M}]", r"\p{N}{1,3}", short=rf"(?:{_SHORT})?"),), whole_words=True): (
        "granite-embed-multi-97m",
    ),
    PreTokenizer(
        (
            r"<sentinel:[0-9]+>",
            r"(?:IMGIMG)(?:(?:A|B|C|D|E|F|G|H|I){1,4})Z",
            r"[\t\n]|    |  ",
            r"\p{N}",
            r"[\p{P}!-/:-@\[-`{-~]",
            _GPT2,
        ),
        add_bos=True,
    ): ("chameleon",),
}
PRE_TOKENIZERS = {name: kind for kind, names in _KINDS.items() for name in names}
# Names of llama.cpp that need more than patterns over a byte-level BPE.
REFUSED = {
    "kimi-k2": "merges by the order of its tokens",
    "afmoe": "groups digits from the right",
    "superbpe": "cuts digits between matches",
    "youtu": "llama.cpp cuts in another way than the model's own tokenizer",
    "tiny_aya": "llama.cpp cuts in another way than the model's own tokenizer",
    "cohere2moe": "llama.cpp cuts in another way than the model's own tokenizer",
    "gemma4": "merges characters instead of bytes",
    "granite-embed-multi-311m": "merges characters instead of bytes",
    "sarvam-moe": "merges characters instead of bytes",
    "whitespace": "does not merge at all",
}


def pre_tokenizer(name: str) -> PreTokenizer:
    """The pre-tokenizer of that name. Raises InvalidInputError for one that is not here, with what to do instead."""
    if name in PRE_TOKENIZERS:
        return PRE_TOKENIZERS[name]
    why = f", which {REFUSED[name]} and is not supported" if name in REFUSED else ", which is not known"
    raise InvalidInputError(
        f"the GGUF file's pre-tokenizer is \"{name}\"{why}: name the model's own tokenizer.json with "
        "--tokenizer (tokenizer= in Python)"
    )
