"""The formats that model families call tools in, and what tells each one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from ..grammar_rules import GrammarRules
from .gemma_calls import GemmaCalls
from .json_calls import JsonCalls
from .named_json import HarmonyCalls, MistralCalls, SectionCalls
from .parser import CallReader
from .python_calls import PythonCalls
from .xml_calls import XmlCalls

IdStyle = Literal["openai", "mistral", "kimi"]


class CallFormat(CallReader, Protocol):
    """How a family writes calls: read, written, and as a grammar."""

    @property
    def marks(self) -> Sequence[str]:
        """Texts around calls that may be special tokens of the vocabulary."""

    def render(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
        """Calls, names with arguments, as the family writes them."""

    def call_rule(self, rules: GrammarRules, name: str, schema: Mapping[str, Any]) -> str:
        """A grammar's expression for one call of the tool ``name``, with arguments of this schema."""

    def grammar(self, rules: GrammarRules, calls: Sequence[str], *, parallel: bool) -> str:
        """An expression for one of such calls, or for several if ``parallel``."""


@dataclass(frozen=True)
class Family:
    """``sign``: what is in a template, or in a call that it writes, of this family and of none before it in the list.
    ``read``: the format, by that text."""

    name: str
    sign: re.Pattern[str]
    read: Callable[[str], CallFormat]
    ids: IdStyle = "openai"


HERMES = JsonCalls("<tool_call>", "</tool_call>", inner="\n")
QWEN_XML = XmlCalls(
    opener="<tool_call>",
    closer="</tool_call>",
    call="<function=",
    call_end=">",
    call_close="</function>",
    key="<parameter=",
    key_end=">",
    value="",
    value_close="</parameter>",
    lines=True,
    bare=True,
)
GLM = XmlCalls(
    opener="<tool_call>",
    closer="</tool_call>",
    call="",
    call_end="",
    call_close="",
    key="<arg_key>",
    key_end="</arg_key>",
    value="<arg_value>",
    value_close="</arg_value>",
)
MINIMAX = XmlCalls(
    opener="<minimax:tool_call>",
    closer="</minimax:tool_call>",
    call='<invoke name="',
    call_end='">',
    call_close="</invoke>",
    key='<parameter name="',
    key_end='">',
    value="",
    value_close="</parameter>",
    grouped=True,
)
DEEPSEEK = SectionCalls(
    section="<｜tool▁calls▁begin｜>",
    section_close="<｜tool▁calls▁end｜>",
    call="<｜tool▁call▁begin｜>",
    arguments="<｜tool▁sep｜>",
    close="<｜tool▁call▁end｜>",
)
KIMI = SectionCalls(
    section="<|tool_calls_section_begin|>",
    section_close="<|tool_calls_section_end|>",
    call="<|tool_call_begin|>",
    arguments="<|tool_call_argument_begin|>",
    close="<|tool_call_end|>",
    prefix="functions.",
    numbered=True,
)
COMMAND = JsonCalls("<|START_ACTION|>", "<|END_ACTION|>", "tool_name", "parameters", listed=True)


def _always(format: CallFormat) -> Callable[[str], CallFormat]:
    return lambda text: format


def _xml(text: str) -> CallFormat:
    """Qwen3-Coder's, or another family's of the same elements in an element of its own."""
    outer = re.search(r"<((?:\w+[:_])?tool_call)>(?:\s|\\n)*<function=", text)
    format = replace(QWEN_XML, opener=f"<{outer[1]}>", closer=f"</{outer[1]}>") if outer else QWEN_XML
    # In a call that the template wrote, a value between tags of one line.
    return replace(format, lines=False) if re.search(r"<parameter=probe_key>probe", text) else format


def _pipes(text: str) -> CallFormat:
    """Granite's or Phi-4-mini's: a list after the mark, or objects between two."""
    closer = "<|/tool_call|>" if "<|/tool_call|>" in text else ""
    return JsonCalls("<|tool_call|>", closer, listed=bool(re.search(r"<\|tool_call\|>\s*\[", text)) or not closer)


def _tool_calls(text: str) -> CallFormat:
    """Apriel's list, or MiniMax-M1's objects on lines of their own."""
    listed = bool(re.search(r"<tool_calls>\s*\[", text))
    return JsonCalls("<tool_calls>", "</tool_calls>", listed=listed, grouped=not listed, inner="" if listed else "\n")


def _glm(text: str) -> CallFormat:
    return replace(GLM, line="\n" if re.search(r"</arg_key>(\n|\\n)", text) else "")


FAMILIES = (
    Family("harmony", re.compile(r"to=functions|<\|constrain\|>"), _always(HarmonyCalls())),
    Family("mistral", re.compile(r"\[TOOL_CALLS\]"), lambda text: MistralCalls("[ARGS]" in text), ids="mistral"),
    Family("deepseek", re.compile("<｜tool▁call▁begin｜>"), lambda text: replace(DEEPSEEK, fence="```json" in text)),
    Family("kimi", re.compile(r"<\|tool_call_begin\|>|tool_declare<\|im_middle\|>"), _always(KIMI), ids="kimi"),
    Family("gemma4", re.compile(r"<\|tool_call>"), _always(GemmaCalls("<|tool_call>", "<tool_call|>", '<|"|>'))),
    Family(
        "functiongemma",
        re.compile("<start_function_call>"),
        _always(GemmaCalls("<start_function_call>", "<end_function_call>", "<escape>")),
    ),
    Family("minimax", re.compile("<minimax:tool_call>"), _always(MINIMAX)),
    Family("qwen3-coder", re.compile("<function="), _xml),
    Family("glm", re.compile("<arg_key>"), _glm),
    Family(
        "lfm2",
        re.compile(r"<\|tool_call_start\|>|<\|tool_list_start\|>|List of tools: \["),
        _always(PythonCalls("<|tool_call_start|>", "<|tool_call_end|>")),
    ),
    Family("granite", re.compile(r"<\|tool_call\|>"), _pipes),
    Family("command", re.compile(r"<\|START_ACTION\|>"), _always(COMMAND)),
    Family("nemotron", re.compile("<TOOLCALL>"), _always(JsonCalls("<TOOLCALL>", "</TOOLCALL>", listed=True))),
    Family("apriel", re.compile(r"<tool_calls>"), _tool_calls),
    Family("functools", re.compile(r"functools\["), _always(JsonCalls("functools", listed=True))),
    Family("hermes", re.compile("<tool_call>"), _always(HERMES)),
    Family("pythonic", re.compile(r"\[probe_tool\(|func_name1\("), _always(PythonCalls())),
    Family(
        "llama3",
        re.compile(r"<\|python_tag\|>|<\|start_header_id\|>ipython|\{\"name\": ?\"probe_tool\", ?\"parameters\""),
        _always(JsonCalls("<|python_tag|>", arguments_key="parameters", bare=True, separator="; ")),
    ),
)
