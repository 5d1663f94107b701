"""What the files beside a model's weights say about generating: end tokens and how tokens are drawn."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InvalidInputError

# Files by Hugging Face's names; the second one counts where the first is missing.
GENERATION, MODEL_CONFIG = "generation_config.json", "config.json"
# Parts of a config.json that hold the language model's own settings.
TEXT_PARTS = ("decoder", "generator", "text_config")

Reader = Callable[[str], "bytes | None"]


@dataclass(frozen=True)
class SamplingDefaults:
    """How the model's authors want tokens to be drawn; None where they do not say.

    ``temperature``: above 0, or 0 for the likeliest token. ``top_k``: draw among so many tokens, 0 for all.
    ``top_p``: among the likeliest whose probabilities sum up to this (0 to 1). ``min_p``: among those with this
    share of the likeliest one's probability (0 to 1). ``repetition_penalty``: above 0, 1 for none. ``do_sample``:
    False for the likeliest token at every step.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    do_sample: bool | None = None

    def stated(self) -> dict[str, float | int | bool]:
        """Those that have a value, by Hugging Face's names."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class GenerationSettings:
    """``eos_ids``: ids that end a text. ``bos_id``: the id that begins one."""

    eos_ids: frozenset[int] = frozenset()
    bos_id: int | None = None
    sampling: SamplingDefaults = SamplingDefaults()


def read_generation(read: Reader) -> GenerationSettings:
    """Settings of generation_config.json, or of config.json where there is none; end tokens also where it names none.

    ``read`` gives a file's content by name, or None when there is none. Raises InvalidInputError when a file is not
    readable, or a value is not of its type.
    """
    generation, config = read_json(read, GENERATION), read_json(read, MODEL_CONFIG)
    parts = [config, *(part for name in TEXT_PARTS if isinstance(part := config.get(name), dict))]
    sources = [(MODEL_CONFIG, part) for part in parts]
    if read(GENERATION) is not None:
        sources = [(GENERATION, generation), *sources]
    eos_ids = next((ids for name, values in sources if (ids := _ids(values, "eos_token_id", name))), frozenset())
    bos_ids = next((ids for name, values in sources if (ids := _ids(values, "bos_token_id", name))), frozenset())
    name, values = sources[0]
    return GenerationSettings(eos_ids, min(bos_ids, default=None), _sampling(values, name))


def folder_generation(folder: Path) -> GenerationSettings:
    """Settings of the files in a model's folder, with or without a tokenizer there; errors as ``read_generation``."""
    return read_generation(lambda name: (folder / name).read_bytes() if (folder / name).exists() else None)


def generation_file(settings: GenerationSettings) -> bytes:
    """The generation_config.json that says so."""
    stated = {"bos_token_id": settings.bos_id, "eos_token_id": sorted(settings.eos_ids)}
    return json.dumps({**stated, **settings.sampling.stated()}).encode()


def read_json(read: Reader, name: str) -> dict[str, Any]:
    """The object in that file, empty when there is no such file."""
    content = read(name)
    if content is None:
        return {}
    try:
        parsed = json.loads(content.decode("utf-8-sig"))
    except ValueError as error:  # UnicodeDecodeError is one
        raise InvalidInputError(f"{name} is not readable JSON ({error}); repair or remove it") from error
    if not isinstance(parsed, dict):
        raise InvalidInputError(f"{name} does not hold a JSON object; repair or remove it")
    return parsed


def _ids(values: Mapping[str, Any], key: str, name: str) -> frozenset[int]:
    stated = values.get(key)
    found = [] if stated is None else stated if isinstance(stated, list) else [stated]
    if not all(type(one) is int for one in found):
        raise InvalidInputError(f"{key} in {name} is {stated!r}, not an id or a list of ids; repair it")
    return frozenset(one for one in found if one >= 0)  # some write -1 for none


def _sampling(values: Mapping[str, Any], name: str) -> SamplingDefaults:
    checked: dict[str, Any] = {}
    for key in SamplingDefaults.__dataclass_fields__:
        value = values.get(key)
        if value is None:
            continue
        checked[key] = _number(key, value)
        if checked[key] is None:
            raise InvalidInputError(f"{key} in {name} is {value!r}, which is no {key.replace('_', ' ')}; repair it")
    return SamplingDefaults(**checked)


def _number(key: str, value: Any) -> float | int | bool | None:
    """The value as its setting's type, None if it is none of it."""
    if key == "do_sample":
        return value if isinstance(value, bool) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    if key == "top_k":
        return int(value) if value == int(value) and value >= 0 else None
    least, most = {"repetition_penalty": (5e-324, math.inf), "temperature": (0.0, math.inf)}.get(key, (0.0, 1.0))
    return float(value) if least <= value <= most else None
