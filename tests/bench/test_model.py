"""The benchmark of whole models: our lines, torch's beside them, and that torch's model is a Llama."""

from __future__ import annotations

import csv
import sys
from argparse import Namespace
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench import torch_model
from bench.bench_model import main
from bench.models import SHAPES, write_llama
from bench.torch_model import Decoder, Llama
from bench.torch_runs import VARIANTS, run, step_bytes, torch_lines, torch_stream_lines
from executorch_webgpu.llm.measure.lines import Line
from executorch_webgpu.llm.measure.stream_lines import StreamLine
from executorch_webgpu.models.llama import LlamaConfig

TINY = SHAPES["tiny"]
ROWS = 24
Array = np.ndarray


def ours(phase: str, context: int, tokens: int) -> Line:
    unknown: dict[str, Any] = dict.fromkeys(field.name for field in fields(Line) if "None" in str(field.type))
    where = ("2026-01-01", "v", "tiny", "a GPU", "dawn", "executorch-webgpu", "f32")
    return Line(*where, phase, context, tokens, **(unknown | {"rate": 2.0, "spread": 0.1, "read_gbs": 10.0}))


def full_logits(model: Llama, tokens: list[int]) -> Array:
    """[S, vocab] in float64, every token attending over all before it: no cache."""
    config = model.config
    w = {name: buffer.numpy().astype(np.float64) for name, buffer in model.named_buffers()}
    turn = w["rope"][0, : len(tokens)] + 1j * w["rope"][1, : len(tokens)]

    def norm(x: Array, weight: Array) -> Array:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + config.norm_eps) * weight

    def heads(y: Array) -> Array:  # [H, S, D]
        return y.reshape(len(tokens), -1, config.head_dim).swapaxes(0, 1)

    def rotated(y: Array) -> Array:
        if config.rope_interleaved:
            pairs = (y[..., ::2] + 1j * y[..., 1::2]) * turn
            return np.stack([pairs.real, pairs.imag], -1).reshape(y.shape)
        half = config.head_dim // 2
        pairs = (y[..., :half] + 1j * y[..., half:]) * turn[:, :half]
        return np.concatenate([pairs.real, pairs.imag], -1)

    x = w["embedding"][tokens]
    for i in range(config.layers):
        layer = {name.removeprefix(f"layers.{i}."): array for name, array in w.items()}
        sizes = np.cumsum([config.heads * config.head_dim, config.kv_heads * config.head_dim])
        q, k, v = map(heads, np.split(norm(x, layer["attn_norm"]) @ layer["qkv"].T, sizes, -1))
        if config.qk_norm:
            q, k = norm(q, layer["q_norm"]), norm(k, layer["k_norm"])
        q, k = rotated(q), rotated(k)
        k, v = (np.repeat(array, config.heads // config.kv_heads, 0) for array in (k, v))
        scores = np.where(np.tri(len(x), dtype=bool), q @ k.swapaxes(1, 2) / np.sqrt(config.head_dim), -np.inf)
        p = np.exp(scores - scores.max(-1, keepdims=True))
        x = x + (p / p.sum(-1, keepdims=True) @ v).swapaxes(0, 1).reshape(len(x), -1) @ layer["out"].T
        gate, up = np.split(norm(x, layer["ffn_norm"]) @ layer["gate_up"].T, 2, -1)
        x = x + (gate / (1 + np.exp(-gate)) * up) @ layer["down"].T
    return norm(x, w["output_norm"]) @ w.get("head", w["embedding"]).T


@pytest.mark.parametrize(
    "changes", [{}, {"tied_head": True}, {"qk_norm": True, "rope_interleaved": False}], ids=["llama", "tied", "qwen3"]
)
@torch.no_grad()
def test_torch_decodes_over_its_cache_as_full_attention_does(changes: dict[str, Any]) -> None:
    config = replace(LlamaConfig(24, 3, 6, 2, 4, 20, 67, 64, 1e-5, 1e4), **changes)
    model = Llama(config, ROWS, "cpu", torch.float32)
    tokens = [int(t) for t in np.random.default_rng(0).integers(0, config.vocab, ROWS)]
    expected = full_logits(model, tokens)
    prompt = 7
    got = [model.logits(torch.tensor([tokens[:prompt]]), torch.arange(prompt), decode=False)]
    for at in range(prompt, ROWS):
        got.append(model.logits(torch.tensor([tokens[at : at + 1]]), torch.tensor([at]), decode=True))
    np.testing.assert_allclose(torch.cat(got).numpy(), expected[prompt - 1 :], atol=2e-5)


@torch.no_grad()
def test_the_decoder_feeds_its_tokens_back() -> None:
    model = Llama(TINY, ROWS, "cpu", torch.float32)
    prompt = [5, 17, 300, 2]
    model.prefill(torch.tensor([prompt[:-1]]), torch.arange(3))
    decoder = Decoder(model, ROWS, model.decode)
    decoder.begin(prompt[-1:], 3)
    for _ in range(6):
        decoder.step()
    text = list(prompt)
    for _ in range(6):
        text.append(int(full_logits(model, text)[-1].argmax()))
    assert decoder.tokens(3, 6) == [text[4:]]


@torch.no_grad()
def test_sequences_of_a_batch_do_not_see_each_other() -> None:
    model = Llama(TINY, ROWS, "cpu", torch.float32, batch=3)
    prompts = torch.randint(TINY.vocab, (3, 4), generator=torch.Generator().manual_seed(5))
    model.prefill(prompts[:, :-1], torch.arange(3))
    decoder = Decoder(model, ROWS, model.decode, batch=3)
    decoder.begin(prompts[:, -1].tolist(), 3)
    for _ in range(4):
        decoder.step()
    for prompt, tokens in zip(prompts.tolist(), decoder.tokens(3, 4), strict=True):
        text = list(prompt)
        for _ in range(4):
            text.append(int(full_logits(model, text)[-1].argmax()))
        assert tokens == text[4:]


def test_torch_lines_stand_beside_ours() -> None:
    wanted = [ours("prefill", 0, 9), ours("decode", 0, 5), ours("decode", 16, 5), ours("decode", 16, 5)]
    prefill, *decode = torch_lines("eager", wanted, "tiny", 120, device="cpu")
    assert [(line.phase, line.context, line.tokens) for line in decode] == [("decode", 0, 5), ("decode", 16, 5)]
    for line in (prefill, *decode):
        assert line.implementation == VARIANTS["eager"] and line.engine == "cuda" and line.rate and line.rate > 0
        assert line.load_s is None and line.dispatches is None
    assert prefill.step_mib is None and prefill.note == ""
    for line in decode:
        assert line.roofline == pytest.approx(10e9 / step_bytes(TINY, line.context + 3), rel=1e-3)
        assert line.rate and line.roofline
        assert line.share == pytest.approx(line.rate / line.roofline, rel=2e-3)
        assert line.note == "cache of 256"


def of_streams(streams: int, prompt: int, steps: int) -> StreamLine:
    values: dict[str, Any] = dict.fromkeys((field.name for field in fields(StreamLine)), 1.0)
    values |= {"implementation": "executorch-webgpu", "read_gbs": 10.0, "note": "mine"}
    return StreamLine(**values | {"streams": streams, "prompt": prompt, "steps": steps})


def test_torch_lines_of_many_sequences_stand_beside_ours() -> None:
    wanted = [of_streams(2, 20, 6), of_streams(1, 20, 6), of_streams(3, 9, 6), of_streams(2, 20, 6)]
    lines = torch_stream_lines("eager", wanted, "tiny", 120, device="cpu", repeats=2)
    assert [(line.prompt, line.streams) for line in lines] == [(20, 1), (20, 2), (9, 3)]
    for line in lines:
        assert line.implementation == VARIANTS["eager"] and (line.engine, line.kv_cache) == ("cuda", "f16")
        assert line.rate and line.each and line.roofline and line.share
        assert line.each == pytest.approx(line.rate / line.streams, rel=1e-3)
        rows = line.streams * (line.prompt + 3.5)
        assert line.roofline == pytest.approx(line.streams * 10e9 / step_bytes(TINY, rows), rel=1e-3)
        assert line.note == "cache of 128"
        assert line.total is line.first_50_ms is line.load_s is line.rows is None


def test_sequences_that_torch_did_not_get_to_are_a_note() -> None:
    (line,) = torch_stream_lines("graph", [of_streams(2, 5, 2)], "tiny", 120, device="cpu")
    assert line.rate is None and line.share is None and line.note


def test_torch_reads_what_its_weights_and_rows_take() -> None:
    model = Llama(TINY, 1, "cpu", torch.float16)
    sizes = {name: buffer.nbytes for name, buffer in model.named_buffers() if name not in ("embedding", "rope")}
    rows = sum(nbytes for name, nbytes in sizes.items() if "cache" in name)
    assert step_bytes(TINY, 100) == sum(sizes.values()) + 99 * rows


@pytest.mark.parametrize(
    ("code", "seconds", "note"),
    [
        ("print('{\"tokens\": 1}', flush=True); import time; time.sleep(60)", 3, "not done after 3 s"),
        ("print('{\"tokens\": 1}'); raise RuntimeError('no memory\\nleft')", 30, "left"),
        ("print('a warning'); print('{\"tokens\": 1}')", 30, ""),
    ],
    ids=["too long", "fails", "works"],
)
def test_what_torch_measured_before_it_failed_counts(code: str, seconds: float, note: str) -> None:
    assert run([sys.executable, "-c", code], seconds) == ([{"tokens": 1}], note)


def test_recorded_steps_are_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under CUDA graphs, where the step runs only when it is recorded, and is then replayed."""
    recorded = []

    def captured(step: Callable[[], None]) -> Callable[[], None]:
        step()
        recorded.append(0)

        def replay() -> None:
            recorded[-1] += 1
            step()

        return replay

    monkeypatch.setattr(torch_model, "captured", captured)
    options = Namespace(
        variant="graph", device="cpu", batches=[1, 2], contexts=[0, 19], prompts=[7, 30], steps=5, repeats=3
    )
    model = Llama(TINY, ROWS, "cpu", torch.float32)
    lines = list(torch_model.measure(model, ROWS, options))
    assert [(line["phase"], line["batch"], line["context"], line["tokens"]) for line in lines] == [
        ("decode", 1, 0, 5),
        ("decode", 1, 19, 5),
        ("decode", 2, 0, 5),
        ("decode", 2, 19, 5),
        ("prefill", 1, 0, 7),
        ("prefill", 1, 0, 30),
    ]
    assert all(len(line["seconds"]) == 3 and min(line["seconds"]) > 0 for line in lines)
    assert recorded == [2 * 4 * 5, 2 * 4 * 5, 4, 4]  # each once more than it is measured


def test_a_variant_that_cannot_run_is_a_note() -> None:
    (line,) = torch_lines("graph", [ours("decode", 0, 5)], "tiny", 120, device="cpu")
    assert line.rate is None and line.share is None and line.note


def test_main(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.csv"
    main(["--shape", "tiny", "--prompts", "9", "40", "--contexts", "0", "20", "--steps", "4", "--csv", str(path)])
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["phase"], row["context"], row["tokens"]) for row in rows] == [
        ("prefill", "0", "9"),
        ("prefill", "0", "40"),
        ("decode", "0", "4"),
        ("decode", "20", "4"),
    ]
    assert all(float(row["rate"]) > 0 and row["model"] == "tiny (random)" and not row["note"] for row in rows)
    assert "tiny (random) on" in capsys.readouterr().out


def test_lines_say_a_precision_that_is_not_the_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.csv"
    sizes = ["--prompts", "9", "--contexts", "0", "--steps", "1", "--repeats", "1"]
    main(["--shape", "tiny", *sizes, "--matmul-precision", "high", "--csv", str(path)])
    with path.open(newline="") as file:
        assert [row["note"] for row in csv.DictReader(file)] == ["matmul precision high"] * 2
    assert "KV cache f32, matmul precision high" in capsys.readouterr().out


def test_random_programs_are_the_same_every_time(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_llama(tmp_path / name, TINY, seed=seed)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c and len(a) == len(c)
