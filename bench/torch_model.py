"""A Llama in PyTorch with a static KV cache, and how fast it is: what the vendor's own stack makes of the same shape.

Run as a program, in a process of its own: python -m bench.torch_model VARIANT --shape NAME …
It prints a line of JSON for each measurement: phase, batch, context, tokens of each sequence, and the seconds of each
repeat.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch.nn.functional import linear, rms_norm, scaled_dot_product_attention, silu

from bench.models import SHAPES
from executorch_webgpu.models.llama import LlamaConfig, rope_tables

WARM_UP = 0.5  # seconds of work that does not count
Step = Callable[[], None]
Random = Callable[..., torch.Tensor]  # of these dims


class Layer(torch.nn.Module):
    """One block; q, k and v are one product, and so are gate and up."""

    def __init__(self, config: LlamaConfig, random: Random) -> None:
        super().__init__()
        self.config = config
        query, key_value = config.heads * config.head_dim, config.kv_heads * config.head_dim
        dims = {
            "attn_norm": (config.dim,),
            "qkv": (query + 2 * key_value, config.dim),
            "out": (config.dim, query),
            "ffn_norm": (config.dim,),
            "gate_up": (2 * config.ffn, config.dim),
            "down": (config.dim, config.ffn),
        }
        if config.qk_norm:
            dims |= {"q_norm": (config.head_dim,), "k_norm": (config.head_dim,)}
        for name, size in dims.items():
            self.register_buffer(name, random(*size))

    def allocate(self, batch: int, rows: int, random: Random) -> None:
        """KV caches of random numbers."""
        for name in ("k_cache", "v_cache"):
            self.register_buffer(name, random(batch, self.config.kv_heads, rows, self.config.head_dim))

    def forward(self, x: torch.Tensor, rope: torch.Tensor, positions: torch.Tensor, decode: bool) -> torch.Tensor:
        """x [B, S, dim], of all sequences at ``positions`` [S]; ``rope``: cos and sin [2, S, …]. Writes the caches."""
        config, (batch, length, _) = self.config, x.shape
        sizes = [heads * config.head_dim for heads in (config.heads, config.kv_heads, config.kv_heads)]
        parts = linear(self._norm(x, self.attn_norm), self.qkv).split(sizes, -1)
        q, k, v = (part.view(batch, length, -1, config.head_dim).transpose(1, 2) for part in parts)
        if config.qk_norm:
            q, k = self._norm(q, self.q_norm), self._norm(k, self.k_norm)
        turned = rotate if config.rope_interleaved else rotate_halves
        q, k = turned(q, rope), turned(k, rope)
        self.k_cache.index_copy_(2, positions, k)
        self.v_cache.index_copy_(2, positions, v)
        if decode:
            attended = self._decode(q, positions)
        else:
            attended = scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + linear(attended.transpose(1, 2).reshape(batch, length, -1), self.out)
        gate, up = linear(self._norm(x, self.ffn_norm), self.gate_up).chunk(2, -1)
        return x + linear(silu(gate) * up, self.down)

    def _decode(self, q: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Attention of a token each over whole caches, with a mask. A group's heads are the rows of one K and V."""
        config, batch = self.config, len(q)
        group = q.reshape(batch, config.kv_heads, config.heads // config.kv_heads, config.head_dim)
        visible = torch.arange(self.k_cache.shape[2], device=q.device)[None] <= positions[:, None]
        out = scaled_dot_product_attention(group, self.k_cache, self.v_cache, attn_mask=visible)
        return out.view(batch, config.heads, 1, config.head_dim)

    def _norm(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return rms_norm(x, weight.shape, weight, self.config.norm_eps)


class Llama(torch.nn.Module):
    """Random weights, and KV caches of ``rows`` for a batch of sequences."""

    def __init__(self, config: LlamaConfig, rows: int, device: str, dtype: torch.dtype, batch: int = 1) -> None:
        super().__init__()
        assert not config.qkv_bias and not config.rope_divisors
        self.config, self._device, self._dtype = config, device, dtype
        self._generator = torch.Generator(device).manual_seed(0)
        self.register_buffer("embedding", self._random(config.vocab, config.dim))
        if not config.tied_head:
            self.register_buffer("head", self._random(config.vocab, config.dim))
        self.layers = torch.nn.ModuleList(Layer(config, self._random) for _ in range(config.layers))
        self.register_buffer("output_norm", self._random(config.dim))
        self.allocate(batch, rows)

    def allocate(self, batch: int, rows: int) -> None:
        """New KV caches; they hold random numbers, so that decode may begin at any position."""
        for layer in self.layers:
            layer.allocate(batch, rows, self._random)
        tables = [torch.from_numpy(table) for table in rope_tables(self.config, rows)]
        self.register_buffer("rope", torch.stack(tables).to(self._device, self._dtype))

    def _random(self, *dims: int) -> torch.Tensor:
        """Near one for norms; else rows of length one."""
        numbers = torch.randn(dims, generator=self._generator, device=self._device) * dims[-1] ** -0.5
        return (numbers + (len(dims) == 1)).to(self._dtype)

    def prefill(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """The likeliest next tokens [B] after prompts [B, S] at positions 0, 1, …"""
        return self.logits(tokens, positions, decode=False).argmax(-1)

    def decode(self, tokens: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        """The likeliest next tokens [B] after one token each [B, 1], all at a position [1]."""
        return self.logits(tokens, position, decode=True).argmax(-1)

    def logits(self, tokens: torch.Tensor, positions: torch.Tensor, decode: bool) -> torch.Tensor:
        """[B, vocab] after the last token of each sequence."""
        x = self.embedding[tokens]
        rope = self.rope[:, positions]
        for layer in self.layers:
            x = layer(x, rope, positions, decode)
        x = rms_norm(x[:, -1], self.output_norm.shape, self.output_norm, self.config.norm_eps)
        return linear(x, self.embedding if self.config.tied_head else self.head)


def rotate(x: torch.Tensor, rope: torch.Tensor) -> torch.Tensor:
    """x [B, H, S, D], whose pairs are neighbours."""
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = rope
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)


def rotate_halves(x: torch.Tensor, rope: torch.Tensor) -> torch.Tensor:
    """x [B, H, S, D], whose pairs are D / 2 apart."""
    first, second = x.chunk(2, -1)
    cos, sin = rope
    return x * cos + torch.cat([-second, first], -1) * sin


class Decoder:
    """Greedy decode whose tokens stay on the device: each step takes the tokens and the position of the last one."""

    def __init__(self, model: Llama, rows: int, decode: Callable[..., torch.Tensor], batch: int = 1) -> None:
        device = model.embedding.device
        self._tokens = torch.zeros((batch, 1), dtype=torch.long, device=device)
        self._position = torch.zeros(1, dtype=torch.long, device=device)
        self._history = torch.zeros((rows, batch), dtype=torch.long, device=device)
        self._decode = decode

    def step(self) -> None:
        tokens = self._decode(self._tokens, self._position)
        self._history.index_copy_(0, self._position, tokens[None])
        self._tokens.copy_(tokens[:, None])
        self._position.add_(1)

    def begin(self, tokens: Sequence[int], position: int) -> None:
        """A token for each sequence of the batch."""
        self._tokens.copy_(torch.tensor(tokens)[:, None])
        self._position.fill_(position)

    def tokens(self, start: int, count: int) -> list[list[int]]:
        """Those of the last steps, on the host, by sequence."""
        return self._history[start : start + count].T.tolist()


def captured(step: Step) -> Step:
    """The step as a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # compiles, and chooses algorithms
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


@torch.no_grad()
def measure(model: Llama, rows: int, options: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Decode of every batch at every context, then prefill of every prompt: what compiles longest comes last."""
    compiled = partial(torch.compile, dynamic=False) if options.variant == "compiled" else lambda function: function
    recorded = captured if options.variant != "eager" else lambda step: step
    for batch in options.batches if options.contexts else []:
        model.allocate(batch, rows)
        decoder = Decoder(model, rows, compiled(model.decode), batch)
        decoder.begin([1] * batch, 0)
        step = recorded(decoder.step)
        for context in options.contexts:
            taken = repeated(partial(decode_to_host, decoder, step, batch, context, options.steps), options)
            yield {"phase": "decode", "batch": batch, "context": context, "tokens": options.steps, "seconds": taken}
    # Decode reads a whole cache, so it gets no longer one than it needs.
    model.allocate(1, max(options.prompts, default=1))
    prefill = compiled(model.prefill)
    next_token = torch.zeros(1, dtype=torch.long, device=options.device)
    for count in options.prompts:
        tokens = torch.randint(model.config.vocab, (1, count), device=options.device)
        positions = torch.arange(count, device=options.device)
        step = recorded(partial(prefill_into, next_token, prefill, tokens, positions))
        taken = repeated(partial(prefill_to_host, step, next_token), options)
        yield {"phase": "prefill", "batch": 1, "context": 0, "tokens": count, "seconds": taken}


def decode_to_host(decoder: Decoder, step: Step, batch: int, context: int, steps: int) -> list[list[int]]:
    decoder.begin(range(1, batch + 1), context)
    for _ in range(steps):
        step()
    return decoder.tokens(context, steps)


def prefill_into(out: torch.Tensor, prefill: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> None:
    out.copy_(prefill(*inputs))


def prefill_to_host(step: Step, next_token: torch.Tensor) -> int:
    step()
    return int(next_token.item())


def repeated(once: Callable[[], object], options: argparse.Namespace) -> list[float]:
    """Seconds of each of ``repeats`` runs, after runs that do not count."""

    def seconds() -> float:
        begun = time.perf_counter()
        once()
        return time.perf_counter() - begun

    seconds()  # compiles
    begun = time.perf_counter()
    while options.device == "cuda" and time.perf_counter() - begun < WARM_UP:
        seconds()
    return [seconds() for _ in range(options.repeats)]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variant", choices=("compiled", "graph", "eager"))
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--rows", type=int, required=True, help="of the KV cache in decode")
    parser.add_argument("--batches", type=int, nargs="+", default=[1], help="sequences of a decode step")
    parser.add_argument("--contexts", type=int, nargs="*", default=[])
    parser.add_argument("--prompts", type=int, nargs="*", default=[])
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args(argv)
    dtype = torch.float16 if options.device == "cuda" else torch.float32
    model = Llama(SHAPES[options.shape], options.rows, options.device, dtype)
    for line in measure(model, options.rows, options):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
