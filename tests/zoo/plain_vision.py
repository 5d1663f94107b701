"""Image models in plain torch: a UNet, a detector with its post-processing, super-resolution, an autoencoder."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F  # noqa: N812, its usual name
from torch import nn
from torch.export import Dim

from .model import Prepared, images, noise, randomized, resizable, zoo


class DoubleConv(nn.Sequential):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class UNet(nn.Module):
    """Ronneberger 2015 with padding: half and double the size, by a transposed convolution or bilinearly."""

    def __init__(self, width: int, depth: int, bilinear: bool, classes: int = 2) -> None:
        super().__init__()
        widths = [width << i for i in range(depth + 1)]
        self.first = DoubleConv(3, width)
        self.down = nn.ModuleList(DoubleConv(a, b) for a, b in itertools.pairwise(widths))
        self.up = nn.ModuleList(
            nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), nn.Conv2d(b, a, 1))
            if bilinear
            else nn.ConvTranspose2d(b, a, 2, stride=2)
            for a, b in itertools.pairwise(widths)
        )
        self.merge = nn.ModuleList(DoubleConv(2 * a, a) for a in widths[:-1])
        self.last = nn.Conv2d(width, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        kept = []
        for down in self.down:
            kept.append(x)
            x = down(F.max_pool2d(x, 2))
        for up, merge, skip in zip(reversed(self.up), reversed(self.merge), reversed(kept), strict=True):
            x = merge(torch.cat([skip, up(x)], dim=1))
        return self.last(x)


@zoo("unet")
def unet(full: bool) -> Prepared:
    if full:
        return images(UNet(32, 4, bilinear=False), 256)
    return resizable(UNet(4, 2, bilinear=False), 4, ((32, 48), (8, 12), (20, 24)))


@zoo("unet_bilinear")
def unet_bilinear(full: bool) -> Prepared:
    return images(UNet(32, 4, bilinear=True), 256) if full else images(UNet(4, 2, bilinear=True), 32)


class ConvAct(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.SiLU()
        )


class Bottleneck(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(ConvAct(width, width, 3), ConvAct(width, width, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


class C2f(nn.Module):
    """A stage of YOLOv8: a split, a chain of bottlenecks, and all of their results side by side."""

    def __init__(self, inputs: int, outputs: int, count: int) -> None:
        super().__init__()
        self.first = ConvAct(inputs, outputs)
        self.chain = nn.ModuleList(Bottleneck(outputs // 2) for _ in range(count))
        self.last = ConvAct((2 + count) * outputs // 2, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = list(self.first(x).chunk(2, 1))
        for part in self.chain:
            parts.append(part(parts[-1]))
        return self.last(torch.cat(parts, 1))


class SPPF(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = ConvAct(width, width // 2)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.last = ConvAct(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [self.first(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.last(torch.cat(parts, 1))


class Detector(nn.Module):
    """Like YOLOv8: a backbone, two scales, boxes as distributions over ``bins`` distances."""

    def __init__(self, width: int, count: int, classes: int = 4, bins: int = 8) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvAct(3, width, 3, 2), ConvAct(width, 2 * width, 3, 2))
        self.middle = C2f(2 * width, 2 * width, count)
        self.deep = nn.Sequential(
            ConvAct(2 * width, 4 * width, 3, 2), C2f(4 * width, 4 * width, count), SPPF(4 * width)
        )
        self.merge = C2f(6 * width, 2 * width, count)
        self.heads = nn.ModuleList(nn.Conv2d(w, 4 * bins + classes, 1) for w in (2 * width, 4 * width))
        self.classes, self.bins = classes, bins
        self.register_buffer("distances", torch.arange(bins, dtype=torch.float32))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Boxes [B, N, 4] as corners in pixels, and the classes' probabilities [B, N, C]."""
        middle = self.middle(self.stem(image))
        deep = self.deep(middle)
        middle = self.merge(torch.cat([F.interpolate(deep, scale_factor=2.0, mode="nearest"), middle], 1))
        boxes, scores = [], []
        for x, head, stride in zip((middle, deep), self.heads, (4, 8), strict=True):
            found = head(x)
            batch, _, height, width = found.shape
            sides, logits = found.flatten(2).split([4 * self.bins, self.classes], 1)
            sides = sides.view(batch, 4, self.bins, height * width).softmax(2)
            sides = (sides * self.distances.view(1, 1, -1, 1)).sum(2)
            grid_y, grid_x = torch.meshgrid(
                torch.arange(height, device=x.device) + 0.5, torch.arange(width, device=x.device) + 0.5, indexing="ij"
            )
            centres = torch.stack([grid_x.reshape(-1), grid_y.reshape(-1)])[None]
            corners = torch.cat([centres - sides[:, :2], centres + sides[:, 2:]], 1) * stride
            boxes.append(corners.transpose(1, 2))
            scores.append(logits.sigmoid().transpose(1, 2))
        return torch.cat(boxes, 1), torch.cat(scores, 1)


class Suppressed(nn.Module):
    """The best boxes of one image, and which of them remain: a matrix form of non-maximum suppression.

    A box goes if one with a higher score, which is itself one of the best, covers it by more than half.
    """

    def __init__(self, detector: nn.Module, best: int) -> None:
        super().__init__()
        self.detector = detector
        self.best = best

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        boxes, scores = self.detector(image)
        score, label = scores[0].max(-1)
        score, order = torch.topk(score, self.best)
        box, label = boxes[0][order], label[order]
        area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
        low = torch.maximum(box[:, None, :2], box[None, :, :2])
        high = torch.minimum(box[:, None, 2:], box[None, :, 2:])
        shared = (high - low).clamp(min=0).prod(-1)
        overlap = shared / (area[:, None] + area[None] - shared)
        covered = torch.triu(overlap > 0.5, diagonal=1).any(0)
        keep = ~covered & (score > 0.25)
        return box, torch.where(keep, score, torch.zeros_like(score)), label, keep


@zoo("yolo")
def yolo(full: bool) -> Prepared:
    if full:
        return images(Detector(32, 2, classes=80, bins=16), 320)
    return resizable(Detector(4, 1), 8, ((32, 48), (16, 24), (24, 32)))


@zoo("yolo_postprocessed")
def yolo_postprocessed(full: bool) -> Prepared:
    """Scores far from each other, so that the order of the best does not hang on a rounding."""
    detector = Detector(32, 2, 80, 16) if full else Detector(4, 1)
    module = randomized(Suppressed(detector, 100 if full else 12))
    for head in detector.heads:
        nn.init.normal_(head.weight, std=0.3)
    size = 320 if full else 32
    return Prepared(module, [(noise(1, 3, size, size, seed=i),) for i in range(2)])


class GreedySuppression(nn.Module):
    """Non-maximum suppression, box by box, with a mask of what remains: as exporters unroll it."""

    def forward(self, boxes: torch.Tensor, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        score, order = scores.sort(descending=True)
        box = boxes.index_select(0, order)
        keep = torch.ones_like(score, dtype=torch.bool)
        for i in range(box.shape[0] - 1):
            low = torch.maximum(box[i, :2], box[i + 1 :, :2])
            high = torch.minimum(box[i, 2:], box[i + 1 :, 2:])
            shared = (high - low).clamp(min=0).prod(-1)
            area = (box[:, 2:] - box[:, :2]).prod(-1)
            overlap = shared / (area[i] + area[i + 1 :] - shared)
            later = keep[i + 1 :] & ~((overlap > 0.5) & keep[i])
            keep = torch.cat([keep[: i + 1], later])
        return order, keep


@zoo("greedy_suppression")
def greedy_suppression(full: bool) -> Prepared:
    count = 32 if full else 9

    def call(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        corner = 4 * noise(count, 2, seed=seed).abs()
        return torch.cat([corner, corner + 2 + noise(count, 2, seed=seed + 1).abs()], 1), noise(count, seed=seed + 2)

    return Prepared(GreedySuppression(), [call(0), call(7)])


class SuperResolution(nn.Module):
    """Like EDSR: residual convolutions, then a pixel shuffle."""

    def __init__(self, width: int, blocks: int, scale: int = 3) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, width, 3, padding=1, padding_mode="reflect")
        self.body = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.PReLU(), nn.Conv2d(width, width, 3, padding=1))
            for _ in range(blocks)
        )
        self.tail = nn.Sequential(nn.Conv2d(width, 3 * scale * scale, 3, padding=1), nn.PixelShuffle(scale))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        small = x = self.head(x)
        for block in self.body:
            x = x + 0.1 * block(x)
        return self.tail(x + small).clamp(0, 1)


@zoo("super_resolution")
def super_resolution(full: bool) -> Prepared:
    if full:
        return images(SuperResolution(64, 16, 2), 128)
    return resizable(SuperResolution(8, 2), 1, ((24, 18), (7, 5), (13, 18)))


class Warp(nn.Module):
    """A spatial transformer: an affine grid from a small network, then sampling."""

    def __init__(self) -> None:
        super().__init__()
        self.locate = nn.Sequential(
            nn.Conv2d(3, 4, 5, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 6)
        )
        nn.init.normal_(self.locate[-1].weight, std=0.1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        theta = self.locate(image).view(-1, 2, 3) + torch.tensor([[[1.0, 0, 0], [0, 1, 0]]])
        grid = F.affine_grid(theta, list(image.shape), align_corners=False)
        return F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


@zoo("spatial_transformer")
def spatial_transformer(full: bool) -> Prepared:
    return images(Warp(), 64 if full else 16)


class Autoencoder(nn.Module):
    """Group norms, strided convolutions and their transposes, and a sampled middle."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encode = nn.Sequential(
            nn.Conv2d(3, width, 3, 2, 1),
            nn.GroupNorm(2, width),
            nn.ELU(),
            nn.Conv2d(width, 2 * width, 4, 2, 1),
            nn.InstanceNorm2d(2 * width, affine=True),
            nn.Softplus(),
            nn.Conv2d(2 * width, 8, 1),
        )
        self.decode = nn.Sequential(
            nn.ConvTranspose2d(4, width, 3, 2, 1, output_padding=1),
            nn.Mish(),
            nn.ReplicationPad2d(1),
            nn.ConvTranspose2d(width, 3, 4, 2, 3, groups=1),
            nn.Hardtanh(),
        )

    def forward(self, image: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, logarithm = self.encode(image).chunk(2, 1)
        logarithm = logarithm.clamp(-5, 5)
        divergence = -0.5 * (1 + logarithm - mean.pow(2) - logarithm.exp()).mean(dim=(1, 2, 3))
        return self.decode(mean + noise * (0.5 * logarithm).exp()), divergence


@zoo("autoencoder")
def autoencoder(full: bool) -> Prepared:
    width, size = (64, 64) if full else (6, 16)
    module = randomized(Autoencoder(width))
    calls = [(noise(b, 3, size, size, seed=b), noise(b, 4, size // 4, size // 4, seed=b + 9)) for b in (3, 1, 2)]
    batch = Dim("batch", min=1, max=3)
    return Prepared(module, calls, ({0: batch}, {0: batch}))
