"""The exported models in torch eager: what a program's logits are compared with.

The modules and the quantizer are the stock exporter's, in the state in which it traces them: nothing here is
this project's own arithmetic.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from executorch.examples.models.llama.export_llama_lib import _prepare_for_llama_export, build_args_parser
from executorch.extension.llm.export.config.llm_config import LlmConfig
from torchao.utils import TorchAOBaseTensor

from stock_export import ExportOptions, Params


class EagerLlama:
    """A Llama in torch with its KV cache.

    ``model(tokens int64 [1, S], {"input_pos": int64 [1]})`` gives the logits of the last position.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model

    def logits(self, tokens: Sequence[int], input_pos: int) -> np.ndarray:
        """Logits float32 [1, vocab] after ``tokens``, which begin at position ``input_pos``."""
        with torch.no_grad():
            out = self.model(torch.tensor([tokens]), {"input_pos": torch.tensor([input_pos])})
        return out.numpy().copy()

    def turns(self, turns: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Logits after each turn, on a fresh cache; every turn begins where the one before ended."""
        self.reset()
        starts = np.cumsum([0, *map(len, turns)])
        return [self.logits(tokens, int(start)) for tokens, start in zip(turns, starts, strict=False)]

    def greedy(self, prompt: Sequence[int], count: int) -> list[int]:
        """``count`` tokens, each the most likely one after what went before, on a fresh cache."""
        self.reset()
        logits = self.logits(prompt, 0)
        tokens = [int(logits.argmax())]
        while len(tokens) < count:
            logits = self.logits(tokens[-1:], len(prompt) + len(tokens) - 1)
            tokens.append(int(logits.argmax()))
        return tokens

    def reset(self) -> None:
        """Clears the KV cache."""
        for name, buffer in self.model.named_buffers():
            if name.endswith(("k_cache", "v_cache")):
                buffer.zero_()


def load_eager(
    params: Params, write_checkpoint: Callable[[Path], None], options: ExportOptions, *, fused: bool = True
) -> EagerLlama:
    """The model that these options make the exporter trace, weights quantized and dequantized again.

    ``write_checkpoint(path)`` saves the float32 weights. With ``fused=False`` attention
    is plain torch operators instead of ExecuTorch's fused CPU kernel.
    """
    model = quantized_model(params, write_checkpoint, options, fused=fused)
    dequantize(model)
    return EagerLlama(model)


def quantized_model(
    params: Params, write_checkpoint: Callable[[Path], None], options: ExportOptions, *, fused: bool = True
) -> torch.nn.Module:
    """The module that the exporter traces, with the weights in the quantizer's own tensor type."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, params_file = Path(folder) / "checkpoint.pth", Path(folder) / "params.json"
        write_checkpoint(checkpoint)
        params_file.write_text(json.dumps(params))
        arguments = options.arguments(checkpoint, params_file, "unused.pte")
        if not fused:
            arguments.remove("--use_sdpa_with_kv_cache")
        config = LlmConfig.from_args(build_args_parser().parse_args(arguments))
        return _prepare_for_llama_export(config).model.eval()


def dequantize(model: torch.nn.Module) -> None:
    """Replaces the linear layers' quantized weights by the float32 values that they stand for.

    The quantizer's tensors do that at every use, which makes a step of a real model ten times slower.
    """
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if isinstance(weight, TorchAOBaseTensor):
                setattr(module, name, torch.nn.Parameter(weight.dequantize(), requires_grad=False))
