"""Encoders in GGUF files, converted and run, against the transformers library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from executorch_webgpu import InvalidProgramError, Runtime, UnsupportedProgramError
from executorch_webgpu.errors import Error
from executorch_webgpu.llm.embedder import Embedder
from executorch_webgpu.models.convert import convert
from executorch_webgpu.models.encoder import EncoderOptions
from executorch_webgpu.models.gguf_encoder import open_gguf_encoder
from executorch_webgpu.models.huggingface_encoder import source_name
from tests.models.tiny_encoder import TinyEncoder, random_texts
from tests.ops.harness import assert_close

SIZES = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 96}
LENGTHS = (7, 1, 19, 41)
F32 = gguf.GGMLQuantizationType.F32
Q8 = gguf.GGMLQuantizationType.Q8_0


def write(model: TinyEncoder, path: Path, kind: Any = F32, without: str = "", extra: str = "", **keys: Any) -> None:
    """A file as llama.cpp's converter writes it; ``keys``: of the architecture, added or in another's place."""
    torch_model = model.model()
    config = torch_model.config
    stated: dict[str, Any] = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.layer_norm_epsilon": config.layer_norm_eps,
        "attention.causal": False,
        "pooling_type": 1,
    }
    writer = gguf.GGUFWriter(path, "bert")
    for key, value in (stated | {key.replace("__", "."): value for key, value in keys.items()}).items():
        kinds = {bool: gguf.GGUFValueType.BOOL, int: gguf.GGUFValueType.UINT32, float: gguf.GGUFValueType.FLOAT32}
        writer.add_key_value(f"bert.{key}", value, kinds[type(value)])
    names = ["token_embd", "position_embd", "token_types", "token_embd_norm"]
    layers = (
        "attn_q",
        "attn_k",
        "attn_v",
        "attn_output",
        "attn_output_norm",
        "ffn_up",
        "ffn_down",
        "layer_output_norm",
    )
    names += [f"blk.{layer}.{name}" for layer in range(config.num_hidden_layers) for name in layers]
    tensors = {k: v.numpy() for k, v in torch_model.state_dict().items()}
    for name in (f"{stem}.{part}" for stem in names for part in ("weight", "bias")):
        values = tensors.get(source_name(name, "bert"))
        if values is None or name == without:
            continue
        if values.ndim == 2 and name.startswith(("blk", "token_embd")) and kind != F32:
            writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
    if extra:
        writer.add_tensor(extra, np.zeros(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize(("number", "pooling"), [(0, "mean"), (1, "mean"), (2, "cls"), (3, "last")])
def test_a_converted_encoder_computes_what_transformers_does(number: int, pooling: str, tmp_path: Path) -> None:
    model = TinyEncoder(fields=SIZES, poolings=(pooling,), normalize=True)
    write(model, tmp_path / "m.gguf", pooling_type=number)
    convert(tmp_path / "m.gguf", tmp_path / "m.pte", EncoderOptions("f32", max_batch=3))
    texts = random_texts(LENGTHS)
    with Runtime.get().load_program(tmp_path / "m.pte") as program, Embedder(program) as embedder:
        assert_close(embedder.embed(texts), model.embeddings(texts))


def test_eight_bits_are_kept(tmp_path: Path) -> None:
    model = TinyEncoder(fields=SIZES, poolings=("mean",), normalize=True)
    write(model, tmp_path / "m.gguf", Q8)
    convert(tmp_path / "m.gguf", tmp_path / "native.pte", EncoderOptions())
    convert(tmp_path / "m.gguf", tmp_path / "f32.pte", EncoderOptions("f32"))
    texts, found = random_texts(LENGTHS), []
    for name in ("native", "f32"):
        with Runtime.get().load_program(tmp_path / f"{name}.pte") as program, Embedder(program) as embedder:
            found.append(embedder.embed(texts))
    assert_close(found[0], found[1])
    assert 1e-6 < np.abs(found[0] - model.embeddings(texts)).max() < 0.05


@pytest.mark.parametrize(
    ("changes", "kind", "match"),
    [
        ({"without": "blk.1.ffn_up.bias"}, InvalidProgramError, r"no tensors 'blk\.1\.ffn_up\.bias'"),
        ({"without": "token_embd.weight"}, InvalidProgramError, r"no tensors 'token_embd\.weight'"),
        (
            {"extra": "blk.0.attn_q_norm.weight"},
            UnsupportedProgramError,
            "attn_q_norm.weight' have no place",
        ),
        ({"context_length": 40}, InvalidProgramError, r"'position_embd\.weight' is \[41, 64\], not \[40, 64\]"),
        ({"pooling_type": 4}, UnsupportedProgramError, "'bert.pooling_type' is 4"),
        ({"attention__causal": True}, UnsupportedProgramError, "'bert.attention.causal' is True"),
        ({"attention__max_alibi_bias": 8.0}, UnsupportedProgramError, "max_alibi_bias' is 8.0"),
        ({"attention__head_count": 5}, InvalidProgramError, "'bert.attention.head_count' is 5, for vectors of 64"),
    ],
)
def test_files_that_are_not_here(changes: dict[str, Any], kind: type[Error], match: str, tmp_path: Path) -> None:
    write(TinyEncoder(fields=SIZES), tmp_path / "m.gguf", **changes)
    with pytest.raises(kind, match=match), open_gguf_encoder(tmp_path / "m.gguf"):
        pass
