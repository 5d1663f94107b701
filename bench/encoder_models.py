"""Encoders in the shape of real ones, with random weights: a program of ours, and the same in torch."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from executorch_webgpu.format.pte import save_program
from executorch_webgpu.models.convert import encoder_metadata
from executorch_webgpu.models.encoder import EncoderConfig, EncoderOptions, SourceEncoder, build_encoder
from executorch_webgpu.models.program import assemble
from executorch_webgpu.models.sentence_transformers import SentenceSettings
from executorch_webgpu.models.weights import Floats, Weight

# dim, layers, heads, ffn, vocab, positions, norm_eps
SHAPES = {
    "tiny": EncoderConfig(32, 2, 4, 48, 97, 64, 1e-12, token_types=2),
    "minilm": EncoderConfig(384, 6, 12, 1536, 30522, 512, 1e-12, token_types=2),
    "bge-small": EncoderConfig(384, 12, 12, 1536, 30522, 512, 1e-12, token_types=2),
    "bert-base": EncoderConfig(768, 12, 12, 3072, 30522, 512, 1e-12, token_types=2),
    "bert-large": EncoderConfig(1024, 24, 16, 4096, 30522, 512, 1e-12, token_types=2),
}
_REPEATS, _WARM_UP = 20, 0.3  # passes of torch, and seconds before them
_SETTINGS = SentenceSettings(("mean",), normalize=True)


def write_encoder(path: Path, config: EncoderConfig, options: EncoderOptions) -> None:
    """Writes a program as ``convert`` does, with the mean as pooling, and vectors of length one."""
    source = SourceEncoder(config, random_weights(config), _SETTINGS)
    graph = build_encoder(source, options)
    constants = encoder_metadata(config, options, _SETTINGS)
    save_program(path, *assemble(graph, ["attention_mask"], constants, _SETTINGS.files()))


def random_weights(config: EncoderConfig) -> dict[str, Weight]:
    """Norms near one, small biases, and matrices of rows of length one: always the same ones."""
    return {name: _weight(name, dims) for name, dims in config.weight_dims().items()}


def _weight(name: str, dims: tuple[int, ...]) -> Weight:
    mean, spread = (1.0, 0.1) if name.endswith("norm.weight") else (0.0, 0.02 if len(dims) == 1 else dims[-1] ** -0.5)
    kept: list[Floats] = []

    def read(start: int, stop: int) -> Floats:
        if not kept:
            random = np.random.default_rng(zlib.crc32(name.encode()))
            kept.append(random.standard_normal((math.prod(dims[:-1]), dims[-1]), np.float32) * np.float32(spread))
        return kept[0][start:stop] + np.float32(mean)

    return Weight(name, dims, read)


def operations(config: EncoderConfig, batch: int, length: int) -> int:
    """Multiplications and additions of the layers' products: those with weights, and those of attention."""
    products = 2 * (4 * config.dim**2 + 2 * config.dim * config.ffn)
    return config.layers * batch * length * (products + 4 * length * config.dim)


def weight_bytes(config: EncoderConfig, bits: float) -> float:
    """Of the layers' matrices, each of which a call reads once."""
    return config.layers * (4 * config.dim**2 + 2 * config.dim * config.ffn) * bits / 8


class TorchEncoder:
    """The same computation in torch, on CUDA or the CPU. ``dtype``: "float32" (TF32 off) or "float16"."""

    def __init__(self, config: EncoderConfig, dtype: str, device: str = "cuda") -> None:
        import torch

        torch.backends.cuda.matmul.allow_tf32 = False
        self.config, self.device, self.dtype = config, device, getattr(torch, dtype)
        self.weights: Mapping[str, Any] = {
            name: torch.from_numpy(weight.rows(0, weight.row_count).reshape(weight.dims)).to(device, self.dtype)
            for name, weight in random_weights(config).items()
        }

    def __call__(self, tokens: Any, mask: Any) -> Any:
        from torch.nn import functional

        c, w = self.config, self.weights
        batch, length = tokens.shape
        x = w["token_embd.weight"][tokens] + w["position_embd.weight"][:length] + w["token_types.weight"][0]
        x = self._norm(x, "token_embd_norm")
        seen = mask.bool()[:, None, None]
        for layer in range(c.layers):
            name = f"blk.{layer}."
            q, k, v = (
                self._linear(x, f"{name}attn_{part}").view(batch, length, c.heads, -1).transpose(1, 2) for part in "qkv"
            )
            out = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2).flatten(2)
            x = self._norm(self._linear(out, f"{name}attn_output") + x, f"{name}attn_output_norm")
            wide = functional.gelu(self._linear(x, f"{name}ffn_up"))
            x = self._norm(self._linear(wide, f"{name}ffn_down") + x, f"{name}layer_output_norm")
        kept = mask.unsqueeze(-1).to(x.dtype)
        return functional.normalize((x * kept).sum(1) / kept.sum(1), dim=1)

    def _linear(self, x: Any, name: str) -> Any:
        from torch.nn import functional

        return functional.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _norm(self, x: Any, name: str) -> Any:
        from torch.nn import functional

        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return functional.layer_norm(x, (self.config.dim,), weight, bias, self.config.norm_eps)

    def vectors(self, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """float32 [B, dim]."""
        import torch

        with torch.no_grad():
            given = (torch.from_numpy(a).to(self.device) for a in (tokens, mask))
            found: np.ndarray = self(*given).float().cpu().numpy()
        return found

    def seconds(self, tokens: np.ndarray, mask: np.ndarray, *, graph: bool) -> float:
        """The best of several calls with their tokens and vectors on the host, as ours; ``graph``: as a CUDA graph."""
        import torch

        host = [torch.from_numpy(a) for a in (tokens, mask)]
        given = [a.to(self.device) for a in host]
        with torch.no_grad():
            call = self._graph(given) if graph else lambda: self(*given)

            def once() -> None:
                for on_device, here in zip(given, host, strict=True):
                    on_device.copy_(here)
                call().float().cpu()

            return best_seconds(once, _REPEATS, _WARM_UP)

    def _graph(self, given: list[Any]) -> Callable[[], Any]:
        import torch

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self(*given)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = self(*given)

        def replay() -> Any:
            graph.replay()
            return out

        return replay


def best_seconds(once: Callable[[], object], repeats: int, warm_up: float) -> float:
    """The shortest of several calls, after some seconds of them."""
    begun = time.perf_counter()
    once()
    while time.perf_counter() - begun < warm_up:
        once()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        once()
        taken.append(time.perf_counter() - start)
    return min(taken)
