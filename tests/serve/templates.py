"""A chat template of a model that has tools, and that reasons where it is asked to, in ChatML with Hermes' calls."""

from __future__ import annotations

_TOOLS = """\
{%- if tools -%}
{{- '<s>system\n<tools>\n' -}}
{%- for tool in tools -%}{{- tool | tojson -}}{{- '\n' -}}{%- endfor -%}
{{- '</tools><|im_end|>\n' -}}
{%- endif -%}
"""
_MESSAGES = """\
{%- for message in messages -%}
{%- if message.role == 'tool' -%}
{{- '<s>user\n<tool_response>' + message.content + '</tool_response><|im_end|>\n' -}}
{%- else -%}
{{- '<s>' + message.role + '\n' + message.content.split('</think>')[-1] -}}
{%- for call in message.tool_calls or [] -%}
{{- '<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' -}}
{{- call.function.arguments | tojson -}}{{- '}\n</tool_call>' -}}
{%- endfor -%}
{{- '<|im_end|>\n' -}}
{%- endif -%}
{%- endfor -%}
"""
_PROMPT = """\
{%- if add_generation_prompt -%}
{{- '<s>assistant\n' -}}
{%- if not enable_thinking -%}{{- '<think>\n\n</think>\n\n' -}}{%- endif -%}
{%- endif -%}
"""
THINKING = _TOOLS + _MESSAGES + _PROMPT
