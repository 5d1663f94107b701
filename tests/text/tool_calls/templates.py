"""Chat templates of our own, each in the style of a model family: how it shows tools, calls, results and thought."""

from __future__ import annotations

TOOLS = "{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}"


def _turns(turn: str, *, tools: str, call: str, result: str, prompt: str, before: str = "", after: str = "") -> str:
    """A template: the tools, then turns in which ``call`` writes each of an answer's calls (``f`` is the function)."""
    return (
        "{%- if tools %}" + tools.replace("{TOOLS}", TOOLS) + "{% endif -%}"
        "{%- for message in messages -%}"
        "{%- if message.role == 'tool' -%}" + result + "{%- else -%}" + turn.replace(
            "BODY",
            "{{- message.content -}}"
            "{%- if message.tool_calls -%}"
            + before
            + "{%- for call in message.tool_calls -%}{%- set f = call.function -%}" + call + "{%- endfor -%}"
            + after
            + "{%- endif -%}",
        ) + "{%- endif -%}{%- endfor -%}{% if add_generation_prompt %}" + prompt + "{% endif %}"
    )  # fmt: skip


def _chatml(call: str, *, before: str = "", after: str = "", prompt: str = "<|im_start|>assistant\n") -> str:
    return _turns(
        "{{- '<|im_start|>' + message.role + '\n' -}}BODY{{- '<|im_end|>\n' -}}",
        tools="<|im_start|>system\n{TOOLS}<|im_end|>\n",
        call=call,
        before=before,
        after=after,
        result="{{- '<|im_start|>user\n<tool_response>' + message.content + '</tool_response><|im_end|>\n' -}}",
        prompt=prompt,
    )


HERMES = _chatml(
    """{{- '\n<tool_call>\n{"name": "' + f.name + '", "arguments": ' + (f.arguments | tojson) + '}\n</tool_call>' -}}"""
)
QWEN_CODER = _chatml(
    "{{- '\n<tool_call>\n<function=' + f.name + '>\n' -}}"
    "{%- for key, value in f.arguments | items -%}"
    "{{- '<parameter=' + key + '>\n' -}}{{- value if value is string else value | tojson -}}{{- '\n</parameter>\n' -}}"
    "{%- endfor -%}{{- '</function>\n</tool_call>' -}}"
)
SEED = QWEN_CODER.replace("tool_call>", "seed:tool_call>")
GLM = _chatml(
    "{{- '\n<tool_call>' + f.name + '\n' -}}"
    "{%- for key, value in f.arguments.items() -%}"
    "{{- '<arg_key>' + key + '</arg_key>\n<arg_value>' -}}{{- value | tojson if value is not string else value -}}"
    "{{- '</arg_value>\n' -}}"
    "{%- endfor -%}{{- '</tool_call>' -}}"
)
MINIMAX = _chatml(
    """{{- '<invoke name="' + f.name + '">\n' -}}"""
    "{%- for key, value in f.arguments | items -%}"
    """{{- '<parameter name="' + key + '">' -}}{{- value | tojson if value is not string else value -}}"""
    "{{- '</parameter>\n' -}}"
    "{%- endfor -%}{{- '</invoke>\n' -}}",
    before="{{- '\n<minimax:tool_call>\n' -}}",
    after="{{- '</minimax:tool_call>' -}}",
)
LFM2 = _chatml(
    "{{- f.name + '(' -}}{%- for key, value in f.arguments | items -%}"
    "{{- key + '=' -}}{{- value | tojson -}}{%- if not loop.last -%}{{- ', ' -}}{%- endif -%}{%- endfor -%}{{- ')' -}}"
    "{%- if not loop.last -%}{{- ', ' -}}{%- endif -%}",
    before="{{- '<|tool_call_start|>[' -}}",
    after="{{- ']<|tool_call_end|>' -}}",
)
PYTHONIC = LFM2.replace("<|tool_call_start|>", "").replace("<|tool_call_end|>", "")
# Reads arguments as JSON text only, and refuses ids that are not its own.
MISTRAL = _turns(
    "{%- if message.role == 'user' -%}[INST] {{ message.content }}[/INST]"
    "{%- elif message.role == 'assistant' -%}BODY</s>"
    "{%- else -%}{{- raise_exception('roles must be user and assistant') -}}{%- endif -%}",
    tools="[AVAILABLE_TOOLS] {{ tools | tojson }}[/AVAILABLE_TOOLS]",
    call="{%- if call.id | length != 9 -%}{{- raise_exception('ids have length 9') -}}{%- endif -%}"
    """{{- '{"name": "' + f.name + '", "arguments": ' + (f.arguments | tojson) + ', "id": "' + call.id + '"}' -}}"""
    "{%- if not loop.last -%}{{- ', ' -}}{%- endif -%}",
    before="[TOOL_CALLS] [",
    after="]",
    result="[TOOL_RESULTS] {{ message.content }}[/TOOL_RESULTS]",
    prompt="",
)
MISTRAL_NAMED = MISTRAL.replace("[TOOL_CALLS] [", "").replace("{%- endfor -%]", "").replace(
    """{{- '{"name": "' + f.name + '", "arguments": ' + (f.arguments | tojson) + ', "id": "' + call.id + '"}' -}}"""
    "{%- if not loop.last -%}{{- ', ' -}}{%- endif -%}",
    "{{- '[TOOL_CALLS]' + f.name + '[ARGS]' + f.arguments -}}",
).replace("{%- endfor -%}]", "{%- endfor -%}")  # fmt: skip
# Two turns in DeepSeek's style: calls only in messages whose content is None, arguments as JSON text.
DEEPSEEK_R1 = (
    "{%- for message in messages -%}"
    "{%- if message.role == 'user' -%}{{- '<｜User｜>' + message.content -}}"
    "{%- elif message.role == 'assistant' and message.content is none -%}"
    "{{- '<｜Assistant｜><｜tool▁calls▁begin｜>' -}}"
    "{%- for call in message.tool_calls -%}"
    "{{- '<｜tool▁call▁begin｜>' + call.type + '<｜tool▁sep｜>' + call.function.name + '\n```json\n' -}}"
    "{{- call.function.arguments + '\n```<｜tool▁call▁end｜>' -}}"
    "{%- if not loop.last -%}{{- '\n' -}}{%- endif -%}"
    "{%- endfor -%}{{- '<｜tool▁calls▁end｜><｜end▁of▁sentence｜>' -}}"
    "{%- elif message.role == 'assistant' -%}{{- '<｜Assistant｜>' + message.content + '<｜end▁of▁sentence｜>' -}}"
    "{%- elif message.role == 'tool' -%}{{- '<｜tool▁output▁begin｜>' + message.content + '<｜tool▁output▁end｜>' -}}"
    "{%- elif message.role == 'system' -%}{{- message.content -}}"
    "{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<｜Assistant｜><think>\n' -}}{%- endif -%}"
)
DEEPSEEK_V31 = _turns(
    "{{- '<｜' + message.role + '｜>' -}}BODY",
    tools="{TOOLS}",
    call="{{- '<｜tool▁call▁begin｜>' + f.name + '<｜tool▁sep｜>' + f.arguments + '<｜tool▁call▁end｜>' -}}",
    before="<｜tool▁calls▁begin｜>",
    after="<｜tool▁calls▁end｜><｜end▁of▁sentence｜>",
    result="{{- '<｜tool▁output▁begin｜>' + message.content + '<｜tool▁output▁end｜>' -}}",
    prompt="<｜Assistant｜></think>",
)
KIMI = _turns(
    "{{- '<|im_' + message.role + '|>' + message.role + '<|im_middle|>' -}}BODY{{- '<|im_end|>' -}}",
    tools="<|im_system|>tool_declare<|im_middle|>{{ tools | tojson }}<|im_end|>",
    call="{{- '<|tool_call_begin|>' + call.id + '<|tool_call_argument_begin|>' -}}"
    "{{- f.arguments if f.arguments is string else f.arguments | tojson -}}{{- '<|tool_call_end|>' -}}",
    before="<|tool_calls_section_begin|>",
    after="<|tool_calls_section_end|>",
    result="{{- '<|im_system|>tool<|im_middle|>## Return of ' + message.tool_call_id + '\n' + message.content -}}"
    "{{- '<|im_end|>' -}}",
    prompt="<|im_assistant|>assistant<|im_middle|>",
)
# One call a message, as an object.
LLAMA3 = _turns(
    "{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' -}}"
    "{%- if message.tool_calls and message.tool_calls | length > 1 -%}"
    "{{- raise_exception('one call a message') -}}{%- endif -%}BODY{{- '<|eot_id|>' -}}",
    tools="<|start_header_id|>system<|end_header_id|>\n\n{TOOLS}<|eot_id|>",
    call="""{{- '{"name": "' + f.name + '", "parameters": ' + (f.arguments | tojson) + '}' -}}""",
    result="{{- '<|start_header_id|>ipython<|end_header_id|>\n\n' + message.content + '<|eot_id|>' -}}",
    prompt="<|start_header_id|>assistant<|end_header_id|>\n\n",
)
GRANITE = _turns(
    "{{- '<|start_of_role|>' + message.role + '<|end_of_role|>' -}}BODY{{- '<|end_of_text|>\n' -}}",
    tools="<|start_of_role|>available_tools<|end_of_role|>{{ tools | tojson }}<|end_of_text|>\n",
    call="{{- {'name': f.name, 'arguments': f.arguments} | tojson -}}{%- if not loop.last -%}{{- ', ' -}}{%- endif -%}",
    before="<|tool_call|>[",
    after="]",
    result="{{- '<|start_of_role|>tool_response<|end_of_role|>' + message.content + '<|end_of_text|>\n' -}}",
    prompt="<|start_of_role|>assistant<|end_of_role|>",
)
PHI4 = _turns(
    "{{- '<|' + message.role + '|>' -}}BODY{{- '<|end|>' -}}",
    tools="<|system|><|tool|>{{ tools | tojson }}<|/tool|><|end|>",
    call="{{- '<|tool_call|>' + (f | tojson) + '<|/tool_call|>' -}}",
    result="{{- '<|tool_response|>' + message.content + '<|end|>' -}}",
    prompt="<|assistant|>",
)
COMMAND = _turns(
    "{{- '<|START_OF_TURN_TOKEN|>' + message.role -}}BODY{{- '<|END_OF_TURN_TOKEN|>' -}}",
    tools="{TOOLS}",
    call="""{{- '{"tool_call_id": "' ~ loop.index0 ~ '", "tool_name": "' ~ f.name ~ '", "parameters": ' -}}"""
    "{{- f.arguments | tojson -}}{{- '}' -}}{%- if not loop.last -%}{{- ', ' -}}{%- endif -%}",
    before="<|START_ACTION|>[",
    after="]<|END_ACTION|>",
    result="{{- '<|START_TOOL_RESULT|>' + message.content + '<|END_TOOL_RESULT|>' -}}",
    prompt="<|CHATBOT_TOKEN|>",
)
_ESCAPED = (
    "{%- macro written(value) -%}"
    "{%- if value is string -%}{{- QUOTE + value + QUOTE -}}"
    "{%- elif value is mapping -%}{{- '{' -}}{%- for key, item in value | items -%}"
    "{{- key + ':' + written(item) -}}{%- if not loop.last -%},{%- endif -%}{%- endfor -%}{{- '}' -}}"
    "{%- elif value is sequence -%}{{- '[' -}}{%- for item in value -%}"
    "{{- written(item) -}}{%- if not loop.last -%},{%- endif -%}{%- endfor -%}{{- ']' -}}"
    "{%- else -%}{{- value | tojson -}}{%- endif -%}{%- endmacro -%}"
)


def _gemma(opener: str, closer: str, quote: str) -> str:
    return _ESCAPED.replace("QUOTE", f"'{quote}'") + _turns(
        "{{- '<start_of_turn>' + message.role + '\n' -}}BODY{{- '<end_of_turn>\n' -}}",
        tools="<start_of_turn>developer\n{TOOLS}<end_of_turn>\n",
        call="{{- 'OPENcall:' + f.name -}}{{- written(f.arguments) -}}{{- 'CLOSE' -}}"
        .replace("OPEN", opener).replace("CLOSE", closer),
        result="{{- '<start_of_turn>developer\n' + message.content + '<end_of_turn>\n' -}}",
        prompt="<start_of_turn>model\n",
    )  # fmt: skip


FUNCTION_GEMMA = _gemma("<start_function_call>", "<end_function_call>", "<escape>")
GEMMA4 = _gemma("<|tool_call>", "<tool_call|>", '<|"|>')
HARMONY = (
    "{%- if tools -%}<|start|>developer<|message|>{{ tools | tojson }}<|end|>{%- endif -%}"
    "{%- for message in messages -%}"
    "{%- if message.role == 'assistant' and message.tool_calls -%}"
    "{%- if message.tool_calls | length > 1 -%}{{- raise_exception('one call a message') -}}{%- endif -%}"
    "{%- if message.thinking -%}"
    "{{- '<|start|>assistant<|channel|>analysis<|message|>' + message.thinking + '<|end|>' -}}{%- endif -%}"
    "{%- set f = message.tool_calls[0].function -%}"
    "{{- '<|start|>assistant<|channel|>commentary to=functions.' + f.name + ' <|constrain|>json<|message|>' -}}"
    "{{- f.arguments | tojson -}}<|call|>"
    "{%- elif message.role == 'assistant' -%}<|start|>assistant<|channel|>final<|message|>{{ message.content }}<|end|>"
    "{%- elif message.role == 'tool' -%}"
    "{{- '<|start|>functions.' + message.name + ' to=assistant<|message|>' + message.content + '<|end|>' -}}"
    "{%- else -%}<|start|>{{ message.role }}<|message|>{{ message.content }}<|end|>{%- endif -%}"
    "{%- endfor -%}{%- if add_generation_prompt -%}<|start|>assistant{%- endif -%}"
)
# A family that the code does not know by name.
UNKNOWN = _chatml("""{{- '<my_call>' + {'name': f.name, 'arguments': f.arguments} | tojson + '</my_call>' -}}""")
UNKNOWN_NAMED = _chatml("{{- '\n[call ' + f.name + ' with ' + (f.arguments | tojson) + ' end]' -}}")
UNKNOWN_SECTION = _chatml(
    "{{- '<one>' + f.name + '<args>' + (f.arguments | tojson) + '</one>' -}}", before="<all>", after="</all>"
)
_ELEMENTS = (
    """{{- '<use tool="' + f.name + '">' -}}"""
    "{%- for key, value in f.arguments | items -%}"
    """{{- '<with name="' + key + '">' -}}{{- value if value is string else value | tojson -}}{{- '</with>' -}}"""
    "{%- endfor -%}{{- '</use>' -}}"
)
UNKNOWN_ELEMENTS = _chatml(_ELEMENTS)
UNKNOWN_GROUPED = _chatml(_ELEMENTS, before="<uses>", after="</uses>")
# Names are tags, which no format here has.
UNREADABLE = _chatml(
    "{{- '<use><name>' + f.name + '</name>' -}}"
    "{%- for key, value in f.arguments | items -%}{{- '<' + key + '>' ~ value ~ '</' + key + '>' -}}{%- endfor -%}"
    "{{- '</use>' -}}"
)

FAMILIES = {
    "hermes": HERMES,
    "qwen3-coder": QWEN_CODER,
    "seed": SEED,
    "glm": GLM,
    "minimax": MINIMAX,
    "lfm2": LFM2,
    "pythonic": PYTHONIC,
    "mistral": MISTRAL,
    "mistral-named": MISTRAL_NAMED,
    "deepseek-r1": DEEPSEEK_R1,
    "deepseek-v3.1": DEEPSEEK_V31,
    "kimi": KIMI,
    "llama3": LLAMA3,
    "granite": GRANITE,
    "phi4": PHI4,
    "command": COMMAND,
    "functiongemma": FUNCTION_GEMMA,
    "gemma4": GEMMA4,
    "harmony": HARMONY,
    "unknown": UNKNOWN,
    "unknown-named": UNKNOWN_NAMED,
    "unknown-section": UNKNOWN_SECTION,
    "unknown-elements": UNKNOWN_ELEMENTS,
    "unknown-grouped": UNKNOWN_GROUPED,
}
# No tools at all; and nothing but two roles in turn.
PLAIN = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
STRICT = (
    "{% for message in messages %}"
    "{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('no turns') }}{% endif %}"
    "{% if message.role not in ('user', 'assistant') %}{{ raise_exception('system role not supported') }}{% endif %}"
    "<start_of_turn>{{ message.role }}\n{{ message.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
PARTS = (
    "{% for message in messages %}{{ message.role }}:"
    "{% for part in message.content %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}\n"
    "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)
# Shows tools and results, but leaves calls to the content.
LFM2_CONTENT = (
    "{%- if tools -%}<|im_start|>system\nList of tools: {{ tools | tojson }}<|im_end|>\n{%- endif -%}"
    "{%- for message in messages -%}{{- '<|im_start|>' + message.role + '\n' -}}"
    "{%- if message.role == 'tool' -%}<|tool_response_start|>{{ message.content }}<|tool_response_end|>"
    "{%- else -%}{{ message.content }}{%- endif -%}{{- '<|im_end|>\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|>assistant\n{%- endif -%}"
)
# Reads the tools from a variable of another name.
XML_TOOLS = HERMES.replace("tool in tools", "tool in xml_tools").replace("if tools ", "if xml_tools ")
# Reads the tools even where there are none.
NEEDS_TOOLS = "{% for tool in tools %}{% endfor %}" + HERMES
