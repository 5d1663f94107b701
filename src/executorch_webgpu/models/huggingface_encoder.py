"""Encoders in folders as Hugging Face publishes them, with the files of sentence-transformers where there are any.

What a configuration leaves out is what the ``transformers`` library takes for it. Heads for masked tokens and poolers
are left out, as that library does when it loads the model alone. Source: transformers 5, its configuration classes.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..errors import InvalidProgramError, UnsupportedProgramError
from ..format.mapped_file import MappedFile
from ..format.safetensors import read_safetensors_header
from .encoder import BIAS_BUCKETS, Activation, EncoderConfig, SourceEncoder
from .encoder_weights import check_tensors
from .huggingface import check_no_adapter, read_json, stored_weight, weight_files
from .huggingface_config import positive_int
from .numbers import check_eps
from .sentence_transformers import Dense, SentenceSettings, read_settings
from .weights import Weight

_BERT = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
_ROBERTA = _BERT | {"pad_token_id": 1}
# What each class has for a key that is not there.
DEFAULTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "bert": _BERT,
        "roberta": _ROBERTA | {"vocab_size": 50265},
        "xlm-roberta": _ROBERTA,
        "camembert": _ROBERTA,
        "mpnet": _ROBERTA | {"vocab_size": 30527, "type_vocab_size": 0},
        "distilbert": _BERT | {"num_hidden_layers": 6, "type_vocab_size": 0},
    }
)
# DistilBERT's words for keys of the others.
_DISTILBERT_KEYS = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
    "hidden_act": "activation",
}
_COUNTED = ("roberta", "xlm-roberta", "camembert", "mpnet")  # positions count tokens that are no padding
_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}

# llama.cpp's names -> Hugging Face's.
_NAMES = {
    "token_embd": "embeddings.word_embeddings",
    "position_embd": "embeddings.position_embeddings",
    "token_types": "embeddings.token_type_embeddings",
    "token_embd_norm": "embeddings.LayerNorm",
    "relative_bias": "encoder.relative_attention_bias",
}
_BERT_BLOCK = {
    "attn_q": "attention.self.query",
    "attn_k": "attention.self.key",
    "attn_v": "attention.self.value",
    "attn_output": "attention.output.dense",
    "attn_output_norm": "attention.output.LayerNorm",
    "ffn_up": "intermediate.dense",
    "ffn_down": "output.dense",
    "layer_output_norm": "output.LayerNorm",
}
_BLOCKS = {
    "mpnet": (
        "encoder.layer",
        _BERT_BLOCK
        | {f"attn_{x}": f"attention.attn.{x}" for x in "qkv"}
        | {"attn_output": "attention.attn.o", "attn_output_norm": "attention.LayerNorm"},
    ),
    "distilbert": (
        "transformer.layer",
        {f"attn_{x}": f"attention.{x}_lin" for x in "qkv"}
        | {"attn_output": "attention.out_lin", "attn_output_norm": "sa_layer_norm"}
        | {"ffn_up": "ffn.lin1", "ffn_down": "ffn.lin2", "layer_output_norm": "output_layer_norm"},
    ),
}
_PREFIX = re.compile(r"(bert|roberta|distilbert|mpnet)\.(?=embeddings\.|encoder\.|transformer\.|pooler\.)")
# Heads and poolers, and buffers of old versions.
_IGNORED = re.compile(
    r"(pooler|cls|lm_head|vocab_transform|vocab_layer_norm|vocab_projector|generator_\w+)\.|embeddings\.position_ids$"
)


@contextmanager
def open_huggingface_encoder(folder: str | PathLike[str]) -> Iterator[SourceEncoder]:
    """Open an encoder, and close its files at the end of the ``with`` block.

    InvalidProgramError if a file is missing or contradicts itself or another; UnsupportedProgramError, which names all
    of them, for features, tensors and modules that are not here.
    """
    folder = Path(folder)
    stated = read_json(folder / "config.json")
    config = read_encoder_config(stated)
    check_no_adapter(folder)
    settings = read_settings(lambda name: _file(folder / name)) or SentenceSettings()
    settings = dataclasses.replace(settings, max_tokens=settings.max_tokens or _stated_length(folder))
    _check_widths(config, settings)
    with ExitStack() as files:
        tensors: dict[str, Weight] = {}
        for path in weight_files(folder):
            for name, weight in _tensors(files, path).items():
                if name in tensors:
                    raise InvalidProgramError(
                        f"{path} has the tensor {name!r} once more: use a folder that has each tensor once."
                    )
                tensors[name] = weight
        spelled = {name: source_name(name, str(stated["model_type"])) for name in config.weight_dims()}
        check_tensors(config, spelled, tensors, "folder")
        weights = {name: dataclasses.replace(tensors[source], name=name) for name, source in spelled.items()}
        dense = tuple(_dense(files, folder, layer) for layer in settings.dense)
        yield SourceEncoder(config, weights, settings, dense)


def read_encoder_config(stated: Mapping[str, Any]) -> EncoderConfig:
    """The configuration; UnsupportedProgramError, which names them, for features that are not here."""
    kind = str(stated.get("model_type"))
    defaults = DEFAULTS[kind]

    def value(key: str) -> Any:
        name = _DISTILBERT_KEYS.get(key, key) if kind == "distilbert" else key
        return stated.get(name, defaults[key])

    def count(key: str) -> int:
        return positive_int(value(key), _DISTILBERT_KEYS.get(key, key) if kind == "distilbert" else key)

    activation = value("hidden_act")
    refused = [f"the activation {activation!r}"] if activation not in _ACTIVATIONS else []
    for key in ("is_decoder", "add_cross_attention", "quantization_config", "per_layer_config", "embedding_size"):
        if stated.get(key):
            refused.append(f"{key!r}")
    if stated.get("position_embedding_type", "absolute") != "absolute":
        refused.append(f"the position embeddings {stated['position_embedding_type']!r}")
    if refused:
        raise UnsupportedProgramError(f"config.json has {', '.join(refused)}, which is not here: use a model without.")
    dim, heads = count("hidden_size"), count("num_attention_heads")
    if dim % heads:
        raise InvalidProgramError(f"config.json has {heads} heads for vectors of {dim}, which they do not divide.")
    pad = value("pad_token_id")
    if kind in _COUNTED and (type(pad) is not int or pad < 0):
        raise InvalidProgramError(f"config.json has {pad!r} as 'pad_token_id', which is no token: correct it.")
    eps = 1e-12 if kind == "distilbert" else value("layer_norm_eps")
    if type(eps) not in (int, float):
        raise InvalidProgramError(f"config.json has {eps!r} as 'layer_norm_eps', which is no number: correct it.")
    return EncoderConfig(
        dim=dim,
        layers=count("num_hidden_layers"),
        heads=heads,
        ffn=count("intermediate_size"),
        vocab=count("vocab_size"),
        positions=count("max_position_embeddings"),
        norm_eps=check_eps(float(eps), "'layer_norm_eps' in config.json"),
        activation=_ACTIVATIONS[activation],
        counts_from=pad + 1 if kind in _COUNTED else None,
        pad_token=pad if kind in _COUNTED else 0,
        token_types=0 if defaults["type_vocab_size"] == 0 else count("type_vocab_size"),
        relative_bias=_buckets(stated) if kind == "mpnet" else 0,
    )


def _buckets(stated: Mapping[str, Any]) -> int:
    found = positive_int(stated.get("relative_attention_num_buckets", BIAS_BUCKETS), "relative_attention_num_buckets")
    if found < BIAS_BUCKETS:  # the library's code finds 32 whatever is stated
        raise UnsupportedProgramError(f"A bias by {found} distances is not here: use a model with {BIAS_BUCKETS}.")
    return found


def _tensors(files: ExitStack, path: Path) -> dict[str, Weight]:
    """The tensors of a file, by the names that the model alone has for them."""
    file = files.enter_context(MappedFile(path))
    found: dict[str, Weight] = {}
    for source, tensor in read_safetensors_header(file.data, path).items():
        name = _PREFIX.sub("", source, count=1) if _PREFIX.match(source) else source
        name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name))
        if not _IGNORED.match(name):
            found[name] = dataclasses.replace(stored_weight(file, source, tensor), source=source)
    return found


def _dense(files: ExitStack, folder: Path, layer: Dense) -> tuple[Weight, Weight | None]:
    path = folder / layer.folder / "model.safetensors"
    if not path.is_file():
        raise UnsupportedProgramError(
            f"{folder} has no file '{layer.folder}/{path.name}': save the model with safetensors, which are read here."
        )
    found = _tensors(files, path)
    dims = {"linear.weight": (layer.outputs, layer.inputs)} | ({"linear.bias": (layer.outputs,)} if layer.bias else {})
    if {name: weight.dims for name, weight in found.items()} != dims:
        raise InvalidProgramError(f"{path} does not have {', '.join(f'{n} {list(d)}' for n, d in dims.items())}.")
    named = {name: dataclasses.replace(weight, name=f"{layer.folder}.{name}") for name, weight in found.items()}
    return named["linear.weight"], named.get("linear.bias")


def _check_widths(config: EncoderConfig, settings: SentenceSettings) -> None:
    """Each layer behind the pooling takes what comes before it."""
    width = config.dim * len(settings.poolings)
    for layer in settings.dense:
        if layer.inputs != width:
            raise InvalidProgramError(f"{layer.folder} takes {layer.inputs} elements, and gets {width}: correct it.")
        width = layer.outputs


def _stated_length(folder: Path) -> int | None:
    """What the tokenizer's files say, where those of sentence-transformers do not."""
    path = folder / "tokenizer_config.json"
    most = read_json(path).get("model_max_length") if path.is_file() else None
    return most if type(most) is int and 0 < most < 1 << 31 else None


def _file(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def source_name(name: str, kind: str) -> str:
    """What Hugging Face calls a weight of ours."""
    stem, _, part = name.rpartition(".")
    if block := re.fullmatch(r"blk\.(\d+)\.(\w+)", stem):
        layers, names = _BLOCKS.get(kind, ("encoder.layer", _BERT_BLOCK))
        return f"{layers}.{block[1]}.{names[block[2]]}.{part}"
    return f"{_NAMES[stem]}.{part}"
