"""The bodies of requests, as OpenAI's API has them, with what vLLM and llama.cpp's server added.

Fields that no one here knows are ignored, as OpenAI does, but for those in ``REFUSED``: to ignore them would mislead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from .errors import ApiError

# Fields whose silence would mislead: what to do instead.
REFUSED: Mapping[str, str] = {
    "audio": "this server writes text only",
    "chat_template": "the model's own is used, with chat_template_kwargs",
    "best_of": "ask for n texts, and choose among them by their log probabilities",
    "dry_multiplier": "use frequency_penalty",
    "dynatemp_range": "use temperature",
    "function_call": "use tool_choice",
    "functions": "use tools",
    "grammar": "use guided_grammar, whose grammars are Lark",
    "json_schema": "use response_format",
    "logits_processors": "use logit_bias, or a grammar",
    "mirostat": "use temperature and top_p",
    "n_predict": "use max_tokens",
    "n_probs": "use logprobs",
    "repeat_penalty": "use repetition_penalty",
    "samplers": "their order is that of transformers",
    "suffix": "this server continues a prompt, and does not fill a gap in it",
    "truncate_prompt_tokens": "give a shorter prompt",
    "typical_p": "use top_p or min_p",
    "use_beam_search": "this server samples",
    "web_search_options": "this server searches nothing",
    "xtc_probability": "use temperature and min_p",
}
# Values that ask for nothing.
_NOTHING: Mapping[str, Any] = {"n_predict": -1, "truncate_prompt_tokens": -1, "typical_p": 1}

Body = TypeVar("Body", bound="RequestBody")
Bias = Annotated[float, Field(ge=-100, le=100)]
MOST_BIASES = 4096  # which each step carries to the device
Penalty = Annotated[float, Field(ge=-2, le=2)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
# Of what a body has very many of, the first that is wrong is named: a list of all would take longer than an answer.
Item = TypeVar("Item")
Many = Annotated[list[Item], Field(fail_fast=True)]
TokenIds = Annotated[Many[Count], Field(min_length=1)]
# Each token's text is held against each stop string.
Stop = Annotated[str, Field(min_length=1, max_length=1024)]
Stops = Annotated[Many[Stop], Field(max_length=64)]
# What a step looks at.
BadWords = Annotated[Many[Annotated[str, Field(min_length=1, max_length=256)]], Field(max_length=256)]


def _few(value: Any) -> Any:
    if isinstance(value, dict) and len(value) > MOST_BIASES:
        raise PydanticCustomError(
            "too_long", "has {given} entries, but takes {most}", {"given": len(value), "most": MOST_BIASES}
        )
    return value


Biases = Annotated[dict[str, Bias], BeforeValidator(_few)]


def _texts(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """One sentence, where pydantic has one for each thing that it could have been."""
    try:
        return check(value)
    except ValidationError:
        raise PydanticCustomError(
            "texts",
            "takes a string, a list of token ids, a list of strings, or a list of lists of token ids; no list is empty",
        ) from None


Texts = Annotated[
    str | TokenIds | Annotated[Many[str], Field(min_length=1)] | Annotated[Many[TokenIds], Field(min_length=1)],
    WrapValidator(_texts),
]


class RequestBody(BaseModel):
    """What all have: numbers are not given as strings, nor as NaN."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class StreamOptions(RequestBody):
    """``include_usage``: whether an event at the end counts tokens."""

    include_usage: bool = False


class JsonSchemaFormat(RequestBody):
    """A JSON schema with a name."""

    name: str = "answer"
    description: str | None = None
    schema_: dict[str, Any] | bool = Field(default=True, alias="schema")
    strict: bool | None = None


class ResponseFormat(RequestBody):
    """What the answer has to be."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None


class StructuredOutputs(RequestBody):
    """One way to say what a text has to be, by vLLM's names."""

    json_: dict[str, Any] | str | None = Field(default=None, alias="json")
    regex: str | None = None
    choice: Many[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: Any = None


class DrawingFields(RequestBody):
    """How tokens are drawn, and what a text has to be: the fields that all have which write texts."""

    model: str | None = None
    stream: bool | None = False
    seed: int | None = None
    stop: Stop | Stops | None = None
    stop_token_ids: Many[Count] | None = None
    ignore_eos: bool | None = None
    include_stop_str_in_output: bool | None = None
    min_tokens: Count | None = None
    allowed_token_ids: TokenIds | None = None
    bad_words: BadWords | None = None
    skip_special_tokens: bool | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    min_p: Share | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    logit_bias: Biases | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: dict[str, Any] | str | None = None
    guided_regex: str | None = None
    guided_choice: Many[str] | None = None
    guided_grammar: str | None = None


class SamplingFields(DrawingFields):
    """The fields that chat and completions share."""

    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    max_tokens: Count | None = None
    prompt_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None


class ContentPart(RequestBody):
    """A part of a message. Only text is read here."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)
    type: str
    text: str | None = None
    refusal: str | None = None


class FunctionCall(RequestBody):
    """What a call calls, and its arguments as JSON."""

    name: str
    arguments: str | dict[str, Any] = ""


class ToolCall(RequestBody):
    """A call that the assistant made before."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: FunctionCall


class Message(RequestBody):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | Many[ContentPart] | None = None
    name: str | None = None
    tool_calls: Many[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Message:
        if self.content is None and self.role in ("system", "developer", "user"):
            raise PydanticCustomError("missing", "a message of this role needs content")
        return self


Messages = Annotated[Many[Message], Field(min_length=1)]


class FunctionDefinition(RequestBody):
    """A function that may be called. ``parameters``: a JSON schema of an object."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(RequestBody):
    """A tool that may be used."""

    type: Literal["function"]
    function: FunctionDefinition


class NamedFunction(RequestBody):
    """A function by its name."""

    name: str


class NamedTool(RequestBody):
    """The tool that must be used."""

    type: Literal["function"] = "function"
    function: NamedFunction


class ChatRequest(SamplingFields):
    """``POST /v1/chat/completions``."""

    messages: Messages
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    max_completion_tokens: Count | None = None
    tools: Many[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    documents: Many[dict[str, Any]] | None = None


class CompletionRequest(SamplingFields):
    """``POST /v1/completions``."""

    prompt: Texts
    echo: bool | None = False
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    best_of: int | None = None


class EmbeddingRequest(RequestBody):
    """``POST /v1/embeddings``."""

    model: str | None = None
    input: Texts
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None
    truncate: bool | None = None


class TokenizeRequest(RequestBody):
    """``POST /tokenize``: a text, or the messages of a chat."""

    model: str | None = None
    prompt: str | None = None
    content: str | None = None
    messages: Messages | None = None
    tools: Many[Tool] | None = None
    add_special_tokens: bool = True
    add_generation_prompt: bool = True
    parse_special: bool = False
    return_token_strs: bool = False
    with_pieces: bool = False
    chat_template_kwargs: dict[str, Any] | None = None


class DetokenizeRequest(RequestBody):
    """``POST /detokenize``."""

    model: str | None = None
    tokens: Many[Count]


def parse(fields: dict[str, Any], kind: type[Body]) -> Body:
    """The request that an object is. Raises ApiError, which names everything that is wrong with it."""
    try:
        request = kind.model_validate(fields)
    except ValidationError as error:
        raise api_error(error) from None
    _refuse_misleading(fields)
    return request


def _refuse_misleading(fields: dict[str, Any]) -> None:
    """Raise ApiError for a field that would do something, and does not here."""
    for name in REFUSED.keys() & fields.keys():
        value = fields[name]
        if name == "best_of" and value in (1, fields.get("n", 1)):
            continue
        if value not in (None, [], {}, "", 0, _NOTHING.get(name)):  # 0 is False, too
            raise ApiError(400, f"{name} is not supported: {REFUSED[name]}", name, "unsupported_parameter")


def api_error(error: ValidationError) -> ApiError:
    """What is wrong with a body, in one sentence."""
    first: str | None = None
    found: dict[str, None] = {}  # each once, in their order
    for each in error.errors(include_url=False, include_context=True, include_input=False):
        path = _path(each["loc"])
        first = first or path
        sentence = f"{path}: {each['msg'][0].lower()}{each['msg'][1:]}"
        found[sentence] = None
    more = f"; and {len(found) - 8} more" if len(found) > 8 else ""
    return ApiError(400, "; ".join(list(found)[:8]) + more, first, "invalid_value")


def _path(location: tuple[int | str, ...]) -> str:
    """``("messages", 0, "content", "str")`` as ``messages[0].content``: without the names of a union's parts."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isidentifier() and part not in _TYPE_NAMES:
            path += f".{part}" if path else part
    return path or "the body"


_TYPE_NAMES = {"str", "int", "float", "bool", "constrained-str", "NamedTool", "ContentPart"}
