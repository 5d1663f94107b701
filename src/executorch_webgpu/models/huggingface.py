"""Models in folders as Hugging Face publishes them: ``config.json`` and one or more safetensors files.

Model types: ``llama`` (SmolLM2 is one), ``mistral``, ``qwen2``, ``qwen3``. Their rope's pairs are halves of a head.
What a configuration leaves out is what the ``transformers`` library takes for it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidProgramError, UnsupportedProgramError
from ..format.mapped_file import MappedFile
from ..format.safetensors import SafetensorsTensor, json_object, read_safetensors_header
from .huggingface_config import Fields, read_config, read_fields, rope_divisors
from .llama import SourceModel, check_weights
from .weights import Floats, Weight

DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
# llama.cpp's names -> Hugging Face's.
_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_IGNORED = ".rotary_emb.inv_freq"  # what the configuration says already, kept by old versions of transformers


@contextmanager
def open_huggingface(folder: str | PathLike[str]) -> Iterator[SourceModel]:
    """Open a model, and close its files at the end of the ``with`` block.

    InvalidProgramError if a file is missing or contradicts itself or another; UnsupportedProgramError, which names it,
    for a model type, a feature or a tensor that is not here.
    """
    folder = Path(folder)
    fields = read_fields(read_json(folder / "config.json"))
    check_no_adapter(folder)
    with ExitStack() as files:
        tensors: dict[str, Weight] = {}
        for path in weight_files(folder):
            file = files.enter_context(MappedFile(path))
            for source, tensor in read_safetensors_header(file.data, path).items():
                name = _library_name(source)
                if name in tensors:
                    raise InvalidProgramError(
                        f"{path} has the tensor {source!r} once more: use a folder that has each tensor once."
                    )
                if not name.endswith(_IGNORED):
                    tensors[name] = stored_weight(file, source, tensor)
        embedding, own_head = _ends(fields, tensors)
        dims = {name: weight.dims for name, weight in tensors.items()}
        config = read_config(
            fields,
            embedding,
            own_head=own_head,
            head_norm=dims.get(_source_name("blk.0.attn_q_norm.weight"), ()),
            keys=dims.get(_source_name("blk.0.attn_k.weight"), ()),
        )
        try:
            check_weights(config, dims, "folder", _source_name)
        except InvalidProgramError as error:
            raise InvalidProgramError(f"{str(error).rstrip('.')}{_assumptions(fields)}.") from error
        # Only now is the size of a head known to be one that tensors have.
        config = dataclasses.replace(config, rope_divisors=rope_divisors(fields, config))
        names = config.weight_dims()
        yield SourceModel(config, {name: dataclasses.replace(tensors[_source_name(name)], name=name) for name in names})


def _ends(fields: Fields, tensors: dict[str, Weight]) -> tuple[Weight, bool]:
    """(the embedding, whether the head is another matrix). Of two tensors that are one, only the embedding stays."""
    embedding, head = (tensors.get(_NAMES[name]) for name in ("token_embd.weight", "output.weight"))
    tied = fields.flag("tie_word_embeddings")
    if embedding is None and tied and head is not None:
        embedding = tensors[_NAMES["token_embd.weight"]] = head
    if embedding is None or len(embedding.dims) != 2 or 0 in embedding.dims:
        raise InvalidProgramError(
            f"The folder has no matrix '{_NAMES['token_embd.weight']}': use one with all weights of the model."
        )
    if not tied or (head is not None and not _equal(head, embedding)):
        return embedding, True
    tensors.pop(_NAMES["output.weight"], None)
    return embedding, False


def _assumptions(fields: Fields) -> str:
    """What a size may come from that does not fit: the class, not the file."""
    assumed = [f"no '{key}', which is then {value}" for key, value in fields.assumed.items()]
    return f" (config.json has {', '.join(assumed)})" if assumed else ""


def check_no_adapter(folder: Path) -> None:
    """transformers would add the adapter to the weights."""
    found = [name for name in ("adapter_model.safetensors", "adapter_model.bin") if (folder / name).exists()]
    if found and (folder / "adapter_config.json").exists():
        raise UnsupportedProgramError(
            f"{folder} has an adapter beside the model ({found[0]}), which is not here: merge it into the weights, or "
            "take it out of the folder."
        )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model; InvalidProgramError if one is missing."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        raise InvalidProgramError(f"{folder} has no '{single.name}' and no '{index.name}': download its weights.")
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise InvalidProgramError(
            f"{index} does not say which file has which tensor: download it again, or make it again with its folder."
        )
    names = sorted(set(places.values()))
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise InvalidProgramError(f"{folder} has no file {name!r}, which its index names: download it.")
    return [folder / name for name in names]


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object of a file of a model; InvalidProgramError, which names it, if it cannot be read."""
    try:
        return json_object(path.read_bytes())
    except OSError as error:
        raise InvalidProgramError(
            f"Cannot read {path} ({error.strerror}): name a folder that holds a model as Hugging Face publishes them."
        ) from error
    except ValueError as error:
        raise InvalidProgramError(f"{path} is not readable ({error}): correct it, or download it again.") from error


def stored_weight(file: MappedFile, name: str, tensor: SafetensorsTensor) -> Weight:
    """The tensor as a Weight, which converts the rows that are asked for and then lets their pages go."""
    if tensor.dtype not in DTYPES:
        raise UnsupportedProgramError(
            f"The tensor {name!r} is of type {tensor.dtype}, which is not read here: use a model whose weights are "
            f"{', '.join(DTYPES)}."
        )

    def read(first: int, last: int) -> Floats:
        dtype, columns = DTYPES[tensor.dtype], tensor.dims[-1]
        row_bytes = columns * dtype.itemsize
        view = file.data[tensor.start + first * row_bytes : tensor.start + last * row_bytes]
        rows = np.frombuffer(view, dtype).reshape(last - first, columns)
        if tensor.dtype == "BF16":  # the upper half of a float32
            floats: Floats = (rows.astype(np.uint32) << 16).view(np.float32)
        else:
            floats = rows.astype(np.float32)
        file.release(view)
        return floats

    return Weight(name, tensor.dims, read, source=name)


def _library_name(name: str) -> str:
    """What transformers loads a tensor as: with the prefix of a model with a head, once.

    A model that was saved without its head has none, one that was saved within another has one too many.
    """
    if re.match(r"model\.(model|lm_head)\.", name):
        return name.removeprefix("model.")
    return f"model.{name}" if re.match(r"(layers\.\d|embed_tokens|norm)\.", name) else name


def _source_name(name: str) -> str:
    """What Hugging Face calls a weight of ours."""
    block = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
    return f"model.layers.{block[1]}.{_BLOCK_NAMES[block[2]]}.{block[3]}" if block else _NAMES[name]


def _equal(a: Weight, b: Weight) -> bool:
    """A head that is stored although it is tied can be another one, and then it counts."""
    return a.dims == b.dims and all(map(np.array_equal, a.pieces(), b.pieces()))
