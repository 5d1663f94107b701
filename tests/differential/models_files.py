"""Random models in the files that people have: safetensors folders and GGUF files, in all their forms.

What a file means is told by ``transformers``: of a folder by loading it, of a GGUF file by a model that has the weights
which the ``gguf`` library reads out of it.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from executorch_webgpu.models.llama import LlamaOptions
from executorch_webgpu.models.matrix import WeightFormat
from tests.differential.models_configs import TinyConfig, draw_config
from tests.models.tiny_gguf import K_QUANTS, QuantType, random_matrix
from tests.models.tiny_huggingface import Stored, stored, write_safetensors

# GGUF's quantized blocks as records, to turn their numbers around.
_RECORDS: dict[QuantType, list[tuple[Any, ...]]] = {
    QuantType.F32: [("w", "<f4")],
    QuantType.F16: [("w", "<f2")],
    QuantType.BF16: [("w", "<u2")],
    QuantType.Q8_0: [("d", "<f2"), ("q", "i1", 32)],
    QuantType.Q4_0: [("d", "<f2"), ("q", "u1", 16)],
    QuantType.Q4_1: [("d", "<f2"), ("m", "<f2"), ("q", "u1", 16)],
    QuantType.Q5_0: [("d", "<f2"), ("h", "<u4"), ("q", "u1", 16)],
    QuantType.Q5_1: [("d", "<f2"), ("m", "<f2"), ("h", "<u4"), ("q", "u1", 16)],
    QuantType.Q4_K: [("d", "<f2"), ("m", "<f2"), ("q", "u1", 140)],
    QuantType.Q5_K: [("d", "<f2"), ("m", "<f2"), ("q", "u1", 172)],
    QuantType.Q6_K: [("q", "u1", 208), ("d", "<f2")],
}
_FLOATS = (QuantType.F32, QuantType.F16, QuantType.BF16)
_ALWAYS_TURNED = (QuantType.F32, QuantType.F16)  # the gguf library takes all others for bytes
_SMALL = (QuantType.Q8_0, QuantType.Q4_0, QuantType.Q4_1, QuantType.Q5_0, QuantType.Q5_1)
_KEPT = (QuantType.Q8_0, QuantType.Q4_0, QuantType.Q4_1)  # which ``native`` has without loss
_GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@dataclass(frozen=True)
class Written:
    """A model in files. ``path``: what to convert. ``refused``: what the refusal names, where there must be one."""

    path: Path
    config: TinyConfig
    weights: WeightFormat
    described: str
    oracle: PreTrainedModel | None
    refused: str | None

    def options(self, context_len: int) -> LlamaOptions:
        return LlamaOptions(self.weights, max_seq_len=min(9, context_len), max_context_len=context_len)


def write_model(seed: int, folder: Path) -> Written:
    """The model of a seed, in a new folder."""
    rng = random.Random(seed)
    return _write_gguf(rng, folder) if rng.random() < 0.5 else _write_folder(rng, folder)


def _random_weights(rng: random.Random, config: TinyConfig) -> dict[str, np.ndarray]:
    """Weights of the model by the library's names; a tied head is not among them."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(_library_config(config))
    numbers = np.random.default_rng(rng.getrandbits(32))
    tied = config.fields.get("tie_word_embeddings", False)
    weights = {}
    for name, tensor in model.state_dict().items():
        if tied and name == "lm_head.weight":
            continue
        shape = tuple(tensor.shape)
        centre, spread = (0.0, shape[-1] ** -0.5) if len(shape) == 2 else (0.0, 0.3) if "bias" in name else (1.0, 0.2)
        weights[name] = (centre + spread * numbers.standard_normal(shape)).astype(np.float32)
    return weights


def _library_config(config: TinyConfig) -> Any:
    return AutoConfig.for_model(**json.loads(json.dumps(config.fields)))


def _write_folder(rng: random.Random, folder: Path) -> Written:
    config = draw_config(rng)
    weights = _random_weights(rng, config)
    tied = "lm_head.weight" not in weights
    stored_head = rng.choice(["", "", "same", "other", "instead"]) if tied else ""
    if stored_head in ("same", "instead"):
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    if stored_head == "other":
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"][::-1].copy()
    if stored_head == "instead":
        del weights["model.embed_tokens.weight"]
    prefix = rng.choice(["as it is", "as it is", "none", "twice"])
    if rng.random() < 0.2:
        weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(4, np.float32)
    dtypes = rng.choice([["F32"], ["BF16"], ["F16"], ["F32", "F16", "BF16"]])
    tensors = {_prefixed(name, prefix): stored(array, rng.choice(dtypes)) for name, array in weights.items()}
    shards = rng.choice([1, 1, 2, 3])
    _write_tensors(folder, tensors, shards)
    (folder / "config.json").write_text(json.dumps(config.fields))
    oracle = None
    if config.refused is None:
        oracle, loading = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True, local_files_only=True
        )
        assert not loading["missing_keys"], loading
    described = f"folder of {shards}, {dtypes}, prefix {prefix}, head {stored_head or tied}: {config.fields}"
    return Written(folder, config, "f32", described, oracle, config.refused)


def _prefixed(name: str, how: str) -> str:
    if how == "none":
        return name.removeprefix("model.")
    return f"model.{name}" if how == "twice" else name


def _write_tensors(folder: Path, tensors: dict[str, Stored], shards: int) -> None:
    if shards == 1:
        write_safetensors(folder / "model.safetensors", tensors)
        return
    places: dict[str, Any] = {}
    for shard in range(shards):
        name = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = dict(list(tensors.items())[shard::shards])
        write_safetensors(folder / name, part)
        places |= dict.fromkeys(part, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def _write_gguf(rng: random.Random, folder: Path) -> Written:
    wide = rng.random() < 0.2
    config = draw_config(rng, wide=wide)
    while config.refused or "layer_types" in config.fields or _slides(config):
        config = draw_config(rng, wide=wide)
    library = _library_config(config)
    architecture = "llama" if config.model_type in ("llama", "mistral") else config.model_type
    big, turned = rng.random() < 0.3, rng.random() < 0.5
    kinds = rng.choice([_FLOATS, (QuantType.F32,), _SMALL, _KEPT, (*_FLOATS, *_SMALL, *(K_QUANTS if wide else ()))])
    splits = rng.choice([1, 1, 2, 3])
    tensors, read, used = {}, {}, set()
    heads = {"attn_q": library.num_attention_heads, "attn_k": library.num_key_value_heads}
    for name, array in _random_weights(rng, config).items():
        ours = _gguf_name(name)
        permuted = heads.get(ours.split(".")[-2], 0) if architecture == "llama" else 0
        array = _permute(array, permuted)
        kind = rng.choice(kinds) if array.ndim == 2 else QuantType.F32
        if array.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0]:
            kind = QuantType.F32
        used |= {kind} if array.ndim == 2 else set()
        raw = _raw(array, kind, rng)
        read[name] = _permute(gguf.dequantize(raw, kind).reshape(array.shape).astype(np.float32), permuted, back=True)
        tensors[ours] = (_turned(raw, kind) if big and (turned or kind in _ALWAYS_TURNED) else raw, kind)
    rope = _rope_keys(rng, library, tensors, architecture, big=big)
    path = _write_parts(rng, folder, architecture, library, tensors, rope, big=big, splits=splits)
    oracle = AutoModelForCausalLM.from_config(library, attn_implementation="eager").to(torch.float32)
    if library.tie_word_embeddings:
        read["lm_head.weight"] = read["model.embed_tokens.weight"]
    oracle.load_state_dict({name: torch.from_numpy(array) for name, array in read.items()})
    oracle.eval()
    weights: WeightFormat = "native" if used <= set(_KEPT) else "f32"
    described = (
        f"{path.name}, {'big' if big else 'little'}-endian{' (blocks turned)' if big and turned else ''}, "
        f"{sorted(kind.name for kind in used)}, {weights}, rope {rope}: {config.fields}"
    )
    return Written(path, config, weights, described, oracle, None)


def _slides(config: TinyConfig) -> bool:
    """Windows are no part of these architectures' files."""
    window = config.fields.get("sliding_window", 4096)
    used = config.model_type == "mistral" or config.fields.get("use_sliding_window", False)
    return bool(used and window is not None and window < 128)


def _gguf_name(name: str) -> str:
    stem, _, kind = name.rpartition(".")
    if stem.startswith("model.layers."):
        _, _, layer, part = stem.split(".", 3)
        return f"blk.{layer}.{_GGUF_NAMES[part]}.{kind}"
    return f"{_GGUF_NAMES[stem]}.{kind}"


def _permute(array: np.ndarray, heads: int, *, back: bool = False) -> np.ndarray:
    """Rows of each head from halves to neighbours, as converters to GGUF do for llama."""
    if not heads:
        return array
    half = len(array) // heads // 2
    shape = (heads, half, 2) if back else (heads, 2, half)
    return np.ascontiguousarray(array.reshape(*shape, *array.shape[1:]).swapaxes(1, 2)).reshape(array.shape)


def _raw(array: np.ndarray, kind: QuantType, rng: random.Random) -> np.ndarray:
    """The bytes [rows, row bytes] of a tensor, little-endian."""
    rows = array.reshape(-1, array.shape[-1])
    if kind in K_QUANTS:
        rows = random_matrix(np.random.default_rng(rng.getrandbits(32)), rows.shape, kind)
        return np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), -1)
    return np.ascontiguousarray(gguf.quantize(rows, kind)).view(np.uint8).reshape(len(rows), -1)


def _turned(raw: np.ndarray, kind: QuantType) -> np.ndarray:
    records = raw.view(np.dtype(_RECORDS[kind])).byteswap()
    return records.view(np.uint8).reshape(raw.shape)


def _rope_keys(
    rng: random.Random, library: Any, tensors: dict[str, Any], architecture: str, *, big: bool
) -> dict[str, Any]:
    """The keys of the rope's scaling; Llama 3's is a tensor."""
    parameters = library.rope_parameters
    if parameters["rope_type"] == "llama3":
        if architecture != "llama":
            # There is no such tensor for the others: the model is another one, then.
            library.rope_parameters = {"rope_type": "default", "rope_theta": parameters["rope_theta"]}
            return {}
        head_dim = getattr(library, "head_dim", None) or library.hidden_size // library.num_attention_heads
        plain = 1.0 / parameters["rope_theta"] ** (torch.arange(0, head_dim, 2).float() / head_dim)
        scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](library, "cpu")
        raw = (plain / scaled).numpy().astype(np.float32).view(np.uint8).reshape(1, -1)
        tensors["rope_freqs.weight"] = (_turned(raw, QuantType.F32) if big else raw, QuantType.F32)
        return {}
    if parameters["rope_type"] == "linear":
        factor = float(parameters["factor"])
        return rng.choice(
            [
                {"rope.scaling.type": "linear", "rope.scaling.factor": factor},
                {"rope.scaling.factor": factor},
                {"rope.scale_linear": factor},
                {"rope.scaling.type": "linear", "rope.scale_linear": factor},
                {"rope.scaling.factor": factor, "rope.scale_linear": 99.0},
            ]
        )
    return rng.choice(
        [
            {},
            {"rope.scaling.type": "none", "rope.scaling.factor": 4.0},
            {"rope.scaling.type": "linear", "rope.scaling.factor": 0.0},
            {"rope.scaling.factor": 0.0, "rope.scale_linear": 4.0},
            {"rope.scaling.type": "linear"},
        ]
    )


def _write_parts(
    rng: random.Random,
    folder: Path,
    architecture: str,
    library: Any,
    tensors: dict[str, tuple[np.ndarray, QuantType]],
    rope: dict[str, Any],
    *,
    big: bool,
    splits: int,
) -> Path:
    """Writes the file or its parts; gives one of them."""
    order = gguf.GGUFEndian.BIG if big else gguf.GGUFEndian.LITTLE
    most = -(-len(tensors) // splits) if splits > 1 else 0
    writer = gguf.GGUFWriter(folder / "m.gguf", architecture, endianess=order, split_max_tensors=most)
    heads, kv_heads = library.num_attention_heads, library.num_key_value_heads
    head_dim = getattr(library, "head_dim", None) or library.hidden_size // heads
    writer.add_context_length(library.max_position_embeddings)
    writer.add_embedding_length(library.hidden_size)
    writer.add_block_count(library.num_hidden_layers)
    layers = library.num_hidden_layers
    writer.add_feed_forward_length(rng.choice([library.intermediate_size, [library.intermediate_size] * layers]))
    writer.add_head_count(rng.choice([heads, [heads] * layers]))
    if kv_heads != heads or rng.random() < 0.5:
        writer.add_head_count_kv(rng.choice([kv_heads, [kv_heads] * layers]))
    if head_dim != library.hidden_size // heads or rng.random() < 0.5:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(library.rms_norm_eps)
    if library.rope_parameters["rope_theta"] != 10000.0 or rng.random() < 0.5:
        writer.add_rope_freq_base(float(library.rope_parameters["rope_theta"]))
    if rng.random() < 0.5:
        writer.add_rope_dimension_count(head_dim)
        writer.add_vocab_size(library.vocab_size)
        writer.add_expert_count(0)
    for key, value in rope.items():
        add = writer.add_string if isinstance(value, str) else writer.add_float32
        add(f"{architecture}.{key}", value)
    for name, (raw, kind) in tensors.items():
        one_row = name.endswith((".bias", "norm.weight")) or name == "rope_freqs.weight"
        writer.add_tensor(name, raw[0] if one_row else raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return rng.choice(sorted(folder.glob("m*.gguf")))
