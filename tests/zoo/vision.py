"""Image models of torchvision and transformers, thin: backbones, segmentation, transformers."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from .model import FirstOutput, Prepared, images, noise, resizable, zoo
from .torchvision_models import torchvision_models


@zoo("resnet18")
def resnet18(full: bool) -> Prepared:
    models = torchvision_models()
    if full:
        return images(models.resnet18(), 224)
    net = models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=10)
    return images(_thin_resnet(net, 8), 64)


def _thin_resnet(net: Any, width: int) -> nn.Module:
    """A ResNet with ``width`` channels for 64: torchvision has them in code."""
    for name, part in list(net.named_modules()):
        owner = net.get_submodule(name.rpartition(".")[0])
        stem = name.rpartition(".")[2]
        if isinstance(part, nn.Conv2d):
            channels = part.in_channels if part.in_channels == 3 else part.in_channels * width // 64
            made = nn.Conv2d(
                channels,
                part.out_channels * width // 64,
                part.kernel_size,
                part.stride,
                part.padding,
                part.dilation,
                bias=part.bias is not None,
            )
            setattr(owner, stem, made)
        elif isinstance(part, nn.BatchNorm2d):
            setattr(owner, stem, nn.BatchNorm2d(part.num_features * width // 64))
        elif isinstance(part, nn.Linear):
            setattr(owner, stem, nn.Linear(part.in_features * width // 64, part.out_features))
    return net


@zoo("resnet50")
def resnet50(full: bool) -> Prepared:
    models = torchvision_models()
    if full:
        return images(models.resnet50(), 224)
    return images(_thin_resnet(models.ResNet(models.resnet.Bottleneck, [1, 2, 1, 1], num_classes=10), 8), 64)


@zoo("mobilenet_v2")
def mobilenet_v2(full: bool) -> Prepared:
    models = torchvision_models()
    if full:
        return images(models.mobilenet_v2(), 224)
    setting = [[1, 8, 1, 1], [6, 8, 2, 2], [6, 16, 1, 2]]
    return images(models.MobileNetV2(10, width_mult=0.5, inverted_residual_setting=setting), 48)


@zoo("mobilenet_v3")
def mobilenet_v3(full: bool) -> Prepared:
    models = torchvision_models()
    if full:
        return images(models.mobilenet_v3_small(), 224)
    block = partial(models.mobilenetv3.InvertedResidualConfig, width_mult=1.0)
    settings = [
        block(8, 3, 8, 8, True, "RE", 2, 1),
        block(8, 5, 24, 16, True, "HS", 2, 1),
        block(16, 3, 32, 16, False, "HS", 1, 2),
    ]
    return images(models.MobileNetV3(settings, last_channel=32, num_classes=10), 48)


@zoo("efficientnet")
def efficientnet(full: bool) -> Prepared:
    models = torchvision_models()
    if full:
        return images(models.efficientnet_b0(), 224)
    block = models.efficientnet.MBConvConfig
    settings = [block(1, 3, 1, 8, 8, 1), block(4, 5, 2, 8, 16, 2), block(4, 3, 2, 16, 24, 1)]
    return images(models.EfficientNet(settings, dropout=0.2, num_classes=10, last_channel=40), 48)


@zoo("convnext")
def convnext(full: bool) -> Prepared:
    models = torchvision_models()
    if full:
        return images(models.convnext_tiny(), 224)
    block = models.convnext.CNBlockConfig
    net = models.ConvNeXt([block(12, 24, 1), block(24, None, 2)], layer_scale=0.5, num_classes=10)
    return images(net, 48)


@zoo("vit")
def vit(full: bool) -> Prepared:
    models = torchvision_models()
    if full:
        return images(models.vit_b_16(), 224)
    net = models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=1, num_heads=4, hidden_dim=32, mlp_dim=48, num_classes=10
    )
    nn.init.normal_(net.heads.head.weight, std=0.1)
    return images(net, 32)


@zoo("swin")
def swin(full: bool) -> Prepared:
    """Windows of attention, shifted by a roll, with an indexed bias of positions."""
    models = torchvision_models()
    if full:
        return images(models.swin_t(), 224)
    net = models.SwinTransformer([4, 4], 16, [2, 2], [2, 4], window_size=[4, 4], num_classes=10)
    return images(net, 32)


@zoo("swin_v2")
def swin_v2(full: bool) -> Prepared:
    models = torchvision_models()
    if full:
        return images(models.swin_v2_t(), 224)
    v2 = models.swin_transformer
    net = models.SwinTransformer(
        [4, 4],
        16,
        [2, 2],
        [2, 4],
        window_size=[3, 3],
        num_classes=10,
        block=v2.SwinTransformerBlockV2,
        downsample_layer=v2.PatchMergingV2,
    )
    return images(net, 32)


class Segmented(nn.Module):
    """A segmentation model of torchvision, with its logits as the output."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.model(image)["out"]


@zoo("deeplab")
def deeplab(full: bool) -> Prepared:
    """Dilated convolutions, pooling of the whole image, and bilinear upsampling of it and of the logits."""
    models = torchvision_models()
    if full:
        return images(Segmented(models.segmentation.deeplabv3_resnet50(weights_backbone=None)), 224)
    net = models.ResNet(
        models.resnet.Bottleneck, [1, 1, 1, 1], replace_stride_with_dilation=[False, True, True], num_classes=10
    )
    backbone = models._utils.IntermediateLayerGetter(_thin_resnet(net, 4), return_layers={"layer4": "out"})
    head = models.segmentation.deeplabv3.DeepLabHead(128, 5, [2, 3])
    return images(Segmented(models.segmentation.DeepLabV3(backbone, head)), 65)


@zoo("lraspp")
def lraspp(full: bool) -> Prepared:
    models = torchvision_models()
    size = 224 if full else 64
    return images(Segmented(models.segmentation.lraspp_mobilenet_v3_large(weights_backbone=None)), size)


@zoo("squeezenet")
def squeezenet(full: bool) -> Prepared:
    """Max pooling that rounds its size up, and a concatenation of branches."""
    return images(torchvision_models().squeezenet1_1(num_classes=10), 224 if full else 64)


@zoo("shufflenet")
def shufflenet(full: bool) -> Prepared:
    """Channels in halves, and shuffled."""
    models = torchvision_models()
    if full:
        return images(models.shufflenet_v2_x1_0(), 224)
    return images(models.ShuffleNetV2([2, 2, 1], [8, 16, 24, 32, 48], num_classes=10), 64)


@zoo("densenet")
def densenet(full: bool) -> Prepared:
    models = torchvision_models()
    if full:
        return images(models.densenet121(), 224)
    return images(models.DenseNet(6, (2, 2), 8, num_classes=10), 48)


@zoo("regnet")
def regnet(full: bool) -> Prepared:
    """Grouped convolutions, squeeze and excitation."""
    models = torchvision_models()
    if full:
        return images(models.regnet_y_400mf(), 224)
    params = models.regnet.BlockParams([2, 1], [16, 24], [8, 8], [1.0, 1.0], [2, 2], se_ratio=0.25)
    return images(models.RegNet(params, num_classes=10, stem_width=8), 32)


@zoo("maxvit")
def maxvit(full: bool) -> Prepared:
    models = torchvision_models()
    if full:
        return images(models.maxvit_t(), 224)
    net = models.MaxVit((64, 64), 8, 4, [8, 16], [1, 1], 4, 0.0, num_classes=10)
    return images(net, 64)


@zoo("inception")
def inception(full: bool) -> Prepared:
    """Branches with convolutions of 1 by 7, and average pooling."""
    models = torchvision_models()
    if full:
        return images(models.inception_v3(init_weights=False), 299)
    part = models.inception
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2),
        part.InceptionA(16, pool_features=8),
        part.InceptionC(232, channels_7x7=8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(768, 10),
    )
    return images(net, 32)


@zoo("resnet_resizable")
def resnet_resizable(full: bool) -> Prepared:
    """Images of any size: what the pooled average divides by changes."""
    models = torchvision_models()
    if full:
        return resizable(models.resnet18(), 32, ((224, 224), (64, 96), (160, 128)))
    net = _thin_resnet(models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=10), 8)
    return resizable(net, 32, ((96, 128), (32, 64), (64, 96)))


@zoo("deit")
def deit(full: bool) -> Prepared:
    from transformers import DeiTConfig, DeiTForImageClassification

    if full:
        return images(FirstOutput(DeiTForImageClassification(DeiTConfig())), 224)
    config = DeiTConfig(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=3, intermediate_size=40, image_size=32, patch_size=8
    )
    return images(FirstOutput(DeiTForImageClassification(config)), 32)


@zoo("dinov2")
def dinov2(full: bool) -> Prepared:
    from transformers import Dinov2Config, Dinov2Model

    if full:
        return images(FirstOutput(Dinov2Model(Dinov2Config(hidden_size=384, num_attention_heads=6))), 224)
    config = Dinov2Config(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=3, image_size=28, patch_size=7, use_swiglu_ffn=True
    )
    return images(FirstOutput(Dinov2Model(config)), 28)


# The partitioner fails on the constants of a bicubic interpolation.
@zoo("dinov2_resized", ("portable",))
def dinov2_resized(full: bool) -> Prepared:
    """Positions are interpolated for images of another size than that of the pretraining."""
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=3, image_size=42, patch_size=7, use_swiglu_ffn=True
    )
    return images(FirstOutput(Dinov2Model(config)), 28)


@zoo("segformer")
def segformer(full: bool) -> Prepared:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    if full:
        return images(FirstOutput(SegformerForSemanticSegmentation(SegformerConfig())), 224)
    config = SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[4, 1],
        hidden_sizes=[8, 16],
        patch_sizes=[7, 3],
        strides=[4, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=16,
    )
    return images(FirstOutput(SegformerForSemanticSegmentation(config)), 32)


@zoo("clip_vision")
def clip_vision(full: bool) -> Prepared:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    if full:
        return images(FirstOutput(CLIPVisionModel(CLIPVisionConfig())), 224)
    config = CLIPVisionConfig(
        hidden_size=24, intermediate_size=40, num_hidden_layers=1, num_attention_heads=3, image_size=32, patch_size=8
    )
    return images(FirstOutput(CLIPVisionModel(config)), 32)


@zoo("mobilevit")
def mobilevit(full: bool) -> Prepared:
    """Convolutions and attention over unfolded patches."""
    from transformers import MobileViTConfig, MobileViTForImageClassification

    if full:
        return images(FirstOutput(MobileViTForImageClassification(MobileViTConfig())), 256)
    config = MobileViTConfig(
        image_size=64,
        hidden_sizes=[12, 16, 20],
        neck_hidden_sizes=[4, 8, 8, 12, 16, 16, 24],
        num_attention_heads=2,
    )
    return images(FirstOutput(MobileViTForImageClassification(config)), 64)


@zoo("yolos", ("portable",))
def yolos(full: bool) -> Prepared:
    from transformers import YolosConfig, YolosForObjectDetection

    if full:
        return images(FirstOutput(YolosForObjectDetection(YolosConfig(hidden_size=192, num_attention_heads=3))), 512)
    config = YolosConfig(
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=3,
        intermediate_size=40,
        image_size=[32, 48],
        patch_size=8,
        num_detection_tokens=5,
    )
    prepared = images(FirstOutput(YolosForObjectDetection(config)), 32)
    return Prepared(prepared.module, [(noise(1, 3, 32, 48),)])
