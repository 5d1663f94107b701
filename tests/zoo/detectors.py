"""Models that find things in images, with what follows their heads: DETR, a single-shot detector, SAM, CLIP."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.export import Dim

from .language import THIN
from .model import Prepared, images, noise, randomized, tokens, zoo

THIN_IMAGE = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
}


class Boxes(nn.Module):
    """transformers' detector, and what its image processor makes of the answers: scores, labels, corners in pixels."""

    def __init__(self, model: nn.Module, size: float) -> None:
        super().__init__()
        self.model = model
        self.size = size

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        logits, boxes = self.model(pixel_values=image, return_dict=False)[:2]
        score, label = logits.softmax(-1)[..., :-1].max(-1)
        x, y, width, height = boxes.unbind(-1)
        corners = torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], -1)
        return score, label, corners * self.size


@zoo("detr")
def detr(full: bool) -> Prepared:
    """Carion 2020: a convolutional backbone, and queries over its features."""
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

    if full:
        backbone = ResNetConfig(out_features=["stage4"])
        config = DetrConfig(use_timm_backbone=False, backbone=None, backbone_config=backbone)
        return images(Boxes(DetrForObjectDetection(config), 320.0), 320)
    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1], out_features=["stage4"]
    )
    layers: dict[str, Any] = {f"{half}_{n}": v for half in ("encoder", "decoder") for n, v in _LAYERS.items()}
    config = DetrConfig(
        d_model=32, num_queries=5, use_timm_backbone=False, backbone=None, backbone_config=backbone, **layers
    )
    return images(Boxes(DetrForObjectDetection(config), 64.0), 64, (2, 1))


_LAYERS = {"layers": 1, "attention_heads": 4, "ffn_dim": 40}


class SingleShot(nn.Module):
    """Liu 2016: scores and offsets from anchors at two scales, decoded, and the best of each image."""

    def __init__(self, width: int, classes: int, best: int) -> None:
        super().__init__()
        self.body = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.ReLU6()) for a, b in ((3, width), (width, 2 * width))
        )
        self.heads = nn.ModuleList(nn.Conv2d(w, 2 * (classes + 5), 3, padding=1) for w in (width, 2 * width))
        self.classes, self.best = classes, best
        self.register_buffer("shapes", torch.tensor([[0.2, 0.3], [0.4, 0.1]]))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found, anchors = [], []
        for body, head in zip(self.body, self.heads, strict=True):
            x = body(x)
            height, width = x.shape[2:]
            found.append(head(x).unflatten(1, (2, -1)).permute(0, 3, 4, 1, 2).flatten(1, 3))
            down, right = ((torch.arange(n) + 0.5) / n for n in (height, width))
            centres = torch.stack(torch.meshgrid(right, down, indexing="xy"), -1).view(-1, 1, 2).expand(-1, 2, -1)
            anchors.append(torch.cat([centres, self.shapes[None].expand(height * width, -1, -1)], -1).flatten(0, 1))
        place, offset = torch.cat(anchors), torch.cat(found, 1)
        score = offset[..., 4:].softmax(-1)[..., 1:]
        centre = offset[..., :2] * 0.1 * place[:, 2:] + place[:, :2]
        size = torch.exp((offset[..., 2:4] * 0.2).clamp(max=4.0)) * place[:, 2:]
        box = torch.cat([centre - size / 2, centre + size / 2], -1).clamp(0, 1)
        score, order = score.flatten(1).topk(self.best, 1)
        which = torch.div(order, self.classes, rounding_mode="floor")
        return score, order % self.classes, box.gather(1, which[..., None].expand(-1, -1, 4))


@zoo("single_shot")
def single_shot(full: bool) -> Prepared:
    return images(SingleShot(32, 20, 100), 160) if full else images(SingleShot(8, 3, 10), 16, (2, 1))


class Segmenter(nn.Module):
    """SAM: masks of what a user points at, and how good they are."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor, points: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = self.model(pixel_values=image, input_points=points, input_labels=labels, multimask_output=True)
        return found.pred_masks, found.iou_scores


@zoo("sam")
def sam(full: bool) -> Prepared:
    """Attention in windows with relative positions, prompts of any number of points, and a decoder of masks."""
    from transformers import SamConfig, SamModel

    image = {"image_size": 64, "patch_size": 8}
    vision = {"hidden_size": 24, "output_channels": 16, "num_hidden_layers": 2, "num_attention_heads": 3, **image}
    config = SamConfig(
        vision_config={**vision, "window_size": 4, "global_attn_indexes": [1], "mlp_dim": 32, "num_pos_feats": 8},
        prompt_encoder_config={"hidden_size": 16, "mask_input_channels": 4, **image},
        mask_decoder_config={
            "hidden_size": 16,
            "mlp_dim": 24,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 16,
        },
    )
    calls = [
        (noise(1, 3, 64, 64, seed=n), 64 * noise(1, 1, n, 2, seed=n).sigmoid(), torch.ones(1, 1, n, dtype=torch.long))
        for n in (4, 2, 3)
    ]
    points = {2: Dim("points", min=2, max=4)}
    return Prepared(randomized(Segmenter(SamModel(config))), calls, (None, points, points))


class Matched(nn.Module):
    """How well each text describes each image."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.model(input_ids=ids, attention_mask=mask, pixel_values=image, return_dict=False)[:2]


def _matched(model: nn.Module) -> Prepared:
    """Texts of several lengths, the second one with padding."""
    calls = []
    for seed, length in enumerate((13, 4, 8)):
        mask = torch.ones(2, length, dtype=torch.long)
        mask[1, length - 2 :] = 0
        calls.append((tokens(2, length, below=95, seed=seed), mask, noise(2, 3, 32, 32, seed=seed)))
    sizes = {1: Dim("length", min=3, max=13)}
    return Prepared(randomized(Matched(model)), calls, (sizes, sizes, None))


@zoo("clip")
def clip(full: bool) -> Prepared:
    from transformers import CLIPConfig, CLIPModel

    text = {**THIN, "bos_token_id": 95, "eos_token_id": 96}
    return _matched(CLIPModel(CLIPConfig(text_config=text, vision_config=THIN_IMAGE, projection_dim=16)))


@zoo("siglip")
def siglip(full: bool) -> Prepared:
    """Attention by a learned query over the image's patches."""
    from transformers import SiglipConfig, SiglipModel

    return _matched(SiglipModel(SiglipConfig(text_config={**THIN, "projection_size": 32}, vision_config=THIN_IMAGE)))
