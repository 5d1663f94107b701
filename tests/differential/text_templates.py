"""Random chat templates and conversations, of what authors of templates write."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.differential.text_tokenizers import random_text

ROLES = ("system", "user", "assistant", "tool")
TOOLS: tuple[Any, ...] = (
    None,
    [{"type": "function", "function": {"name": "f", "parameters": {"a": ["<é>", 1.5, None, True]}}}],
    [],
)
DOCUMENTS: tuple[Any, ...] = (None, [{"title": "T", "text": "some text"}])
HEADS = (
    "",
    "{{ bos_token }}",
    "{{- bos_token -}}\n",
    "{% if bos_token is defined %}{{ bos_token }}{% else %}none{% endif %}",
    "{% if tools is not none %}{{ tools | tojson }}\n{% endif %}",
    "{%- if tools %}\n{{ tools | tojson(indent=2) }}\n{%- endif %}",
    "{% if tools is defined and tools %}{% for tool in tools %}{{ tool.function.name }};{% endfor %}{% endif %}",
    "{% if documents is none %}no documents{% else %}{{ documents[0].title }}{% endif %}\n",
    "{% if not pad_token is defined %}no pad{% endif %}{{ pad_token }}",
    "{{ unk_token }}{{ image_token }}{{ cls_token | default('nothing') }}",
    "{% set ns = namespace(n=0) %}",
    "{# a comment #}\n",
    "{%- set system = messages[0].content if messages[0].role == 'system' else 'Be brief.' -%}{{ system }}",
    "{% macro show(x) %}<{{ x }}>{% endmacro %}{{ show('a') }}",
    "{{ strftime_now('%Y')[:2] }}",
    "{% if custom is defined %}{{ custom }}{% endif %}",
    "  {% if true %}\n  indented\n  {% endif %}\n",
    "{{ dict(a=1) | tojson }}{{ range(3) | list }}{{ {'b': '<', 'a': '\"'} | tojson(sort_keys=true) }}",
)
CONTENT = (
    "{{ message['content'] }}",
    "{{ message.content | trim }}",
    "{{ message['content'].strip() }}",
    "{{ message.content[:5] }}",
    "{{ message.content.split('\\n')[-1] }}",
    "{{ message.content | replace('a', 'b') }}",
    "{{ message.content | upper }}",
    "{{ message.content | tojson }}",
    "{{ message.content | tojson(ensure_ascii=true) }}",
    "{{ '<' + message.content + '>' }}",
    "{{ message.content | length }}",
    "{% if '</think>' in message.content %}{{ message.content.split('</think>')[-1] }}{% endif %}",
    "{% if message.content == 'hello' %}!{% else %}{{ message.content }}{% endif %}",
    "{{ message.content.lstrip('\\n') }}",
    "{{ (message.content ~ '') | string }}",
    "{% generation %}{{ message.content }}{% endgeneration %}",
    "{{ message.get('content') or 'empty' }}",
    "{{ message.content if message.content is string else message.content | tojson }}",
    "{{ message.reasoning_content | default('') }}{{ message.content }}",
    "{% if message.thinking is defined %}{{ message.thinking }}/{% endif %}{{ message.content }}",
    "{% if message.name is defined %}{{ message.name }}: {% endif %}{{ message.content }}",
    "{% if 'tool_calls' in message %}{{ message.tool_calls | length }}{% endif %}{{ message.content }}",
    "{% if message.tool_calls %}{{ message.tool_calls | tojson }}{% endif %}{{ message.content }}",
)
LOOPS = (
    ("{% for message in messages %}", "{% endfor %}"),
    ("{%- for message in messages -%}\n", "\n{%- endfor -%}"),
    ("{% for message in messages %}\n  ", "\n{% endfor %}\n"),
    ("{% for message in messages if message.role != 'tool' %}", "{% endfor %}"),
    ("{% for message in messages %}{% if loop.index > 3 %}{% break %}{% endif %}", "{% endfor %}"),
    (
        "{% for message in messages %}{% if loop.first and message.role == 'system' %}{% continue %}{% endif %}",
        "{% endfor %}",
    ),
    ("{% for message in messages | reverse %}{{ loop.revindex0 }}", "{% endfor %}"),
    (
        "{% set ns2 = namespace(i=0) %}{% for message in messages %}{% set ns2.i = ns2.i + 1 %}{{ ns2.i }}",
        "{% endfor %}",
    ),
)
CHECKS = (
    "",
    "",
    "",
    "{% if message.role == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}",
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ '' }}{% endif %}",
    "{% if message.role not in ['user', 'assistant', 'system', 'tool'] %}{{ raise_exception('role') }}{% endif %}",
)
TAILS = (
    "",
    "{% if add_generation_prompt %}{start}assistant\n{% endif %}",
    "{%- if add_generation_prompt %}{{ '{start}assistant\\n' }}{%- endif %}",
    "{{ eos_token }}",
    "\n",
)


def template(rng: Random, special: tuple[str, ...]) -> str:
    """Jinja source that writes some of these special tokens itself."""
    start, end = rng.choice(special), rng.choice(special)
    opening, closing = rng.choice(LOOPS)
    role = rng.choice(("{{ message.role }}", "{{ message['role'] }}\n", "{{ message['role'] | capitalize }}: ", ""))
    around = rng.choice((f"{start}{role}", f"{{{{ '{start}' }}}}{role}\n", role))
    ending = rng.choice((end, f"{end}\n", f"{{{{ '{end}' + '\\n' }}}}", "{{ eos_token }}", ""))
    body = f"{opening}{rng.choice(CHECKS)}{around}{rng.choice(CONTENT)}{ending}{closing}"
    heads = "".join(rng.sample(HEADS, rng.randrange(3)))
    return heads + body + rng.choice(TAILS).replace("{start}", start)


def conversation(rng: Random, typed: tuple[str, ...]) -> dict[str, Any]:
    """Messages and the variables given with them; contents hold the text of ``typed`` tokens now and then."""
    messages = [_message(rng, typed) for _ in range(rng.randrange(1, 5))]
    given: dict[str, Any] = {"messages": messages, "add_generation_prompt": rng.random() < 0.6}
    if rng.random() < 0.4:
        given["tools"] = rng.choice(TOOLS)
    if rng.random() < 0.3:
        given["documents"] = rng.choice(DOCUMENTS)
    if rng.random() < 0.2:
        given["custom"] = random_text(rng, typed)
    return given


def _message(rng: Random, typed: tuple[str, ...]) -> dict[str, Any]:
    content = rng.choice((random_text(rng, typed), f" {random_text(rng, typed)}\n", "hello", "x</think>y"))
    message: dict[str, Any] = {"role": rng.choice(ROLES), "content": content}
    if rng.random() < 0.4:
        message["name"] = rng.choice((None, "Ann"))
    if rng.random() < 0.4:
        message[rng.choice(("reasoning_content", "thinking", "reasoning"))] = random_text(rng, typed)
    if rng.random() < 0.4:
        message["tool_calls"] = rng.choice((None, [{"function": {"name": "f", "arguments": {"q": content}}}]))
    return message
