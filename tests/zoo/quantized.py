"""Quantized models: 8-bit weights (VulkanQuantizer), static 8 bits (XNNPACKQuantizer), 8da4w and 4w (torchao)."""

from __future__ import annotations

import torch
from torch import nn
from torch.export import Dim

from .language import GROUPED, small_model
from .model import FirstOutput, Inputs, Prepared, noise, randomized, tokens, zoo
from .plain_vision import ConvAct
from .vision import mobilenet_v2, resnet50

# torchao's operators have no variants that write to an output, so the exporter cannot leave them to the host.
DELEGATED = ("vulkan", "partial", "half")
# The partitioner leaves the quantization of activations out of these, so that a file does not hold the model's meaning.
UNDELEGATED = ("portable",)


class Perceptron(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.LayerNorm(hidden),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 11),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


class Block(nn.Module):
    """A block of a text encoder."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(60, width)
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        batch, length, width = x.shape
        q, k, v = (
            part.view(batch, length, self.heads, width // self.heads).transpose(1, 2)
            for part in self.qkv(self.norm(x)).chunk(3, -1)
        )
        attended = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(nn.functional.gelu(self.up(x)))


def pt2e(module: nn.Module, quantizer: object, calls: list[Inputs], dynamic: object = None) -> nn.Module:
    """The module after post-training quantization, calibrated with ``calls``."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    graph = torch.export.export(module.eval(), calls[0], dynamic_shapes=dynamic, strict=False).module()
    prepared = prepare_pt2e(graph, quantizer)
    for inputs in calls:
        prepared(*inputs)
    return convert_pt2e(prepared)


def _vulkan(**options: object) -> object:
    from executorch.backends.vulkan.quantizer.vulkan_quantizer import VulkanQuantizer, get_symmetric_quantization_config

    return VulkanQuantizer().set_global(get_symmetric_quantization_config(**options))


def _static(**options: object) -> object:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )

    return XNNPACKQuantizer().set_global(get_symmetric_quantization_config(**options))


def _rows(width: int, longest: int) -> tuple[list[Inputs], object]:
    calls = [(noise(n, width, seed=n),) for n in (longest, 2, longest // 2 + 1)]
    return calls, ({0: Dim("rows", min=2, max=longest)},)


@zoo("weights_8bit")
def weights_8bit(full: bool) -> Prepared:
    """VulkanQuantizer, weights only: linear_q8csw."""
    width, hidden = (256, 512) if full else (32, 48)
    calls, dynamic = _rows(width, 13)
    return Prepared(pt2e(Perceptron(width, hidden), _vulkan(), calls, dynamic), calls, dynamic)


@zoo("weights_4bit_pt2e")
def weights_4bit_pt2e(full: bool) -> Prepared:
    """VulkanQuantizer with 4 bits a weight, one scale a channel."""
    width, hidden = (256, 512) if full else (32, 48)
    calls, dynamic = _rows(width, 13)
    return Prepared(pt2e(Perceptron(width, hidden), _vulkan(weight_bits=4), calls, dynamic), calls, dynamic)


@zoo("dynamic_8bit", UNDELEGATED)
def dynamic_8bit(full: bool) -> Prepared:
    """VulkanQuantizer, activations quantized as they come."""
    width, hidden = (256, 512) if full else (32, 48)
    calls, dynamic = _rows(width, 13)
    return Prepared(pt2e(Perceptron(width, hidden), _vulkan(is_dynamic=True), calls, dynamic), calls, dynamic)


class SmallCNN(nn.Module):
    """Convolutions of all kinds: full, depthwise, pointwise, grouped, strided; an addition between two of them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, 2, 1)
        self.deep = nn.Conv2d(width, width, 3, 1, 1, groups=width)
        self.point = nn.Conv2d(width, width, 1)
        self.wide = nn.Conv2d(width, 2 * width, 3, 2, 1)
        self.last = nn.Linear(2 * width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        x = x + torch.relu(self.point(torch.relu(self.deep(x))))
        x = torch.relu(self.wide(x))
        return self.last(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


@zoo("static_cnn")
def static_cnn(full: bool) -> Prepared:
    """8 bits throughout, one scale a channel: q8ta_conv2d, _dw, _pw, q8ta_add, q8ta_linear."""
    width, size = (32, 64) if full else (8, 16)
    calls = [(noise(1, 3, size, size, seed=i),) for i in range(3)]
    quantizer = _static(is_per_channel=True)
    return Prepared(pt2e(randomized(SmallCNN(width)), quantizer, calls), calls)


@zoo("static_cnn_per_tensor", ("portable",))  # the partitioner takes scales by channel only
def static_cnn_per_tensor(full: bool) -> Prepared:
    width, size = (32, 64) if full else (8, 16)
    calls = [(noise(1, 3, size, size, seed=i),) for i in range(3)]
    quantizer = _static(is_per_channel=False)
    return Prepared(pt2e(randomized(SmallCNN(width)), quantizer, calls), calls)


@zoo("static_batchnorm_cnn")
def static_batchnorm_cnn(full: bool) -> Prepared:
    """Batch norms are folded into the quantized convolutions."""
    width, size = (32, 64) if full else (8, 16)
    calls = [(noise(1, 3, size, size, seed=i),) for i in range(3)]
    features = width * (size // 4) ** 2
    net = nn.Sequential(ConvAct(3, width, 3, 2), ConvAct(width, width, 3, 2), nn.Flatten(), nn.Linear(features, 5))
    return Prepared(pt2e(randomized(net), _static(is_per_channel=True), calls), calls)


def _static_images(prepared: Prepared, size: int, full: bool) -> Prepared:
    """An image model with 8 bits throughout, calibrated with three images.

    The last mean is over an odd number of codes: that of an even one is often half a code, where rounding depends on
    the last bit of a sum.
    """
    calls = [(noise(1, 3, size, size, seed=i),) for i in range(3)]
    return Prepared(pt2e(prepared.module, _static(is_per_channel=True), calls), calls[: 1 if full else 3])


@zoo("static_mobilenet")
def static_mobilenet(full: bool) -> Prepared:
    """torchvision's: bounds of 6, additions, depthwise convolutions, all of them on codes."""
    return _static_images(mobilenet_v2(full), 224 if full else 40, full)


@zoo("static_resnet")
def static_resnet(full: bool) -> Prepared:
    """torchvision's bottlenecks: additions before a ReLU, max pooling of codes."""
    return _static_images(resnet50(full), 224 if full else 96, full)


@zoo("static_perceptron")
def static_perceptron(full: bool) -> Prepared:
    width, hidden = (256, 512) if full else (32, 48)
    calls, dynamic = _rows(width, 13)
    return Prepared(pt2e(Perceptron(width, hidden), _static(is_per_channel=True), calls, dynamic), calls, dynamic)


@zoo("dynamic_perceptron", UNDELEGATED)
def dynamic_perceptron(full: bool) -> Prepared:
    """XNNPACKQuantizer's dynamic quantization: choose_qparams on the host or in the delegate."""
    width, hidden = (256, 512) if full else (32, 48)
    calls, dynamic = _rows(width, 13)
    quantizer = _static(is_per_channel=True, is_dynamic=True)
    return Prepared(pt2e(Perceptron(width, hidden), quantizer, calls, dynamic), calls, dynamic)


def _torchao(module: nn.Module, config: object) -> nn.Module:
    from torchao.quantization import quantize_
    from torchao.utils import unwrap_tensor_subclass

    module = module.eval()
    quantize_(module, config)
    return unwrap_tensor_subclass(module)


def _8da4w(group: int = 32) -> object:
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig
    from torchao.quantization.granularity import PerGroup

    return Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int4, weight_granularity=PerGroup(group))


def _encoder(config: object, full: bool) -> Prepared:
    module = _torchao(Block(256 if full else 32, 4), config)
    calls = [(tokens(1, n, below=60, seed=n),) for n in (17, 2, 9)]
    return Prepared(module, calls, ({1: Dim("length", min=2, max=17)},))


@zoo("8da4w_encoder", DELEGATED)
def encoder_8da4w(full: bool) -> Prepared:
    """4-bit weights by groups, activations of 8 bits by token."""
    return _encoder(_8da4w(), full)


@zoo("4w_encoder", DELEGATED)
def encoder_4w(full: bool) -> Prepared:
    """4-bit weights by groups."""
    from torchao.quantization import IntxWeightOnlyConfig
    from torchao.quantization.granularity import PerGroup

    return _encoder(IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32)), full)


@zoo("8w_encoder", DELEGATED)
def encoder_8w(full: bool) -> Prepared:
    """8-bit weights, one scale a channel."""
    from torchao.quantization import IntxWeightOnlyConfig
    from torchao.quantization.granularity import PerAxis

    return _encoder(IntxWeightOnlyConfig(weight_dtype=torch.int8, granularity=PerAxis(0)), full)


@zoo("embedding_4bit", DELEGATED)
def embedding_4bit(full: bool) -> Prepared:
    """A 4-bit embedding by groups, before a 4-bit encoder."""
    from torchao.quantization import IntxWeightOnlyConfig, quantize_
    from torchao.quantization.granularity import PerGroup

    module = Block(64, 4).eval()
    config = IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32))
    quantize_(module, config, lambda part, name: isinstance(part, nn.Embedding))
    module = _torchao(module, _8da4w())
    calls = [(tokens(1, n, below=60, seed=n),) for n in (17, 2, 9)]
    return Prepared(module, calls, ({1: Dim("length", min=2, max=17)},))


# In float16, many codes of activations are rounded to another one.
@zoo("8da4w_llama", ("vulkan", "partial"))
def llama_8da4w(full: bool) -> Prepared:
    """A language model with 4-bit layers and heads of grouped queries."""
    longest = 17
    thin = {"hidden_size": 64, "intermediate_size": 96}
    sizes = {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9} if full else thin
    model = small_model("Llama", {**GROUPED, **sizes, "vocab_size": 100, "num_key_value_heads": 3 if full else 2})
    model = _torchao(FirstOutput(model, use_cache=False), _8da4w())
    calls = [(tokens(1, n, below=60, seed=n),) for n in (longest, 2, 9)]
    return Prepared(model, calls, (({1: Dim("length", min=2, max=longest)},),))
