"""Which tokens end a generated text, known by their text: files name one "eos" and often mistype or forget the others.

The texts and the exceptions are llama.cpp's, so that a file ends its texts here where it ends them there.
"""

from __future__ import annotations

from collections.abc import Mapping

# Ends of a text, a turn or a tool call. A file that types one of these as ordinary text is mistaken.
END_TEXTS = frozenset(
    (
        *("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "[EOS]", "<｜end▁of▁sentence｜>"),
        *("<|im_end|>", "<|end|>", "<|eot_id|>", "<|end_of_turn|>", "<end_of_turn>", "<turn|>", "<end_of_utterance>"),
        *("<EOT>", "_<EOT>", "[EOT]", "[e~["),
        *("<|eom_id|>", "<|return|>", "<|call|>", "<|calls|>", "<|flush|>", "<|tool_response>"),
    )
)
# What separates files and repositories, or pads, in models of code: a text does not go on past them either. A file's
# key for one of them comes first.
FILL_END_TEXTS = {
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": ("<|file_sep|>",),
}


def ends_by_text(ids: Mapping[str, int], stated: Mapping[str, int] | None = None) -> frozenset[int]:
    """Ids that end a text, among the tokens ``ids`` (text to id) of a vocabulary.

    ``stated``: ids that a file names by the keys "eos", "eot", "eom", "fim_pad", "fim_rep" and "fim_sep".
    """
    return _ends(ids, stated or {}) - {ids[text] for text in ordinary_ends(ids, stated)}


def ordinary_ends(ids: Mapping[str, int], stated: Mapping[str, int] | None = None) -> frozenset[str]:
    """Texts of ``END_TEXTS`` in ``ids`` that are something else beside the other ends of this vocabulary."""
    ends = _ends(ids, stated or {})
    here = {text for text, index in ids.items() if index in ends}
    calls = bool(here & {"<|call|>", "<|calls|>"})
    no_ends = set()
    # Where a message ends with <|end|> and an answer of several messages with one of these, <|end|> ends no answer.
    if calls and here & {"<|return|>", "<|flush|>"}:
        no_ends.add("<|end|>")
    # These vocabularies have HTML's </s>.
    if here & {"<|tool_response>", "<|plamo:eos|>"}:
        no_ends.add("</s>")
    return frozenset(no_ends & here)


def _ends(ids: Mapping[str, int], stated: Mapping[str, int]) -> frozenset[int]:
    ends = {ids[text] for text in END_TEXTS if text in ids}
    for key, texts in FILL_END_TEXTS.items():
        ends |= {stated[key]} if key in stated else {ids[text] for text in texts if text in ids}
    return frozenset(ends | {stated[key] for key in ("eos", "eot", "eom") if key in stated})
