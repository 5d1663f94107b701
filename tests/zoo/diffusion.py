"""Parts of image generators: a denoising step with its timestep, and a decoder of latents."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812, its usual name
from torch import nn
from torch.export import Dim

from .model import Prepared, noise, randomized, zoo


def timestep_embedding(timestep: torch.Tensor, width: int) -> torch.Tensor:
    """Sines and cosines of a timestep, in geometric frequencies."""
    half = width // 2
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, dtype=torch.float32, device=timestep.device) / half)
    angles = timestep[:, None].float() * frequencies[None]
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)


class Residual(nn.Module):
    """Group norms and convolutions, with the timestep added between them."""

    def __init__(self, inputs: int, outputs: int, time: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(groups, outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.time = nn.Linear(time, outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        made = self.conv1(F.silu(self.norm1(x))) + self.time(F.silu(time))[:, :, None, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(made)))


class ImageAttention(nn.Module):
    """Attention over all pixels, then to a text."""

    def __init__(self, width: int, context: int, groups: int, heads: int = 2) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width)
        self.own = nn.MultiheadAttention(width, heads, batch_first=True)
        self.cross = nn.MultiheadAttention(width, heads, kdim=context, vdim=context, batch_first=True)
        self.feed = nn.Linear(width, 4 * width)
        self.back = nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        batch, width, height, columns = x.shape
        h = self.norm(x).reshape(batch, width, height * columns).transpose(1, 2)
        h = h + self.own(h, h, h, need_weights=False)[0]
        h = h + self.cross(h, context, context, need_weights=False)[0]
        value, gate = self.feed(h).chunk(2, dim=-1)
        h = h + self.back(value * F.gelu(gate))
        return x + h.transpose(1, 2).reshape(batch, width, height, columns)


class DenoisingStep(nn.Module):
    """A UNet with a timestep and a text, twice for guidance, then a deterministic step (DDIM) to the next latents."""

    def __init__(self, width: int, context: int, groups: int) -> None:
        super().__init__()
        time = 4 * width
        self.width = width
        self.embed = nn.Sequential(nn.Linear(width, time), nn.SiLU(), nn.Linear(time, time))
        self.first = nn.Conv2d(4, width, 3, padding=1)
        self.high = Residual(width, width, time, groups)
        self.down = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.low = Residual(width, 2 * width, time, groups)
        self.attention = ImageAttention(2 * width, context, groups)
        self.up = nn.Conv2d(2 * width, width, 3, padding=1)
        self.merge = Residual(2 * width, width, time, groups)
        self.last = nn.Sequential(nn.GroupNorm(groups, width), nn.SiLU(), nn.Conv2d(width, 4, 3, padding=1))
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
        self.register_buffer("kept", torch.cumprod(1 - betas, 0))

    def predict(self, x: torch.Tensor, timestep: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        time = self.embed(timestep_embedding(timestep, self.width))
        x = high = self.high(self.first(x), time)
        x = self.attention(self.low(self.down(x), time), context)
        x = self.up(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.last(self.merge(torch.cat([x, high], 1), time))

    def forward(self, latents: torch.Tensor, timestep: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        both = self.predict(torch.cat([latents, latents]), timestep.expand(2), context)
        blind, guided = both.chunk(2)
        error = blind + 7.5 * (guided - blind)
        now = self.kept[timestep].view(-1, 1, 1, 1)
        then = self.kept[(timestep - 20).clamp(min=0)].view(-1, 1, 1, 1)
        clean = (latents - (1 - now).sqrt() * error) / now.sqrt()
        return then.sqrt() * clean + (1 - then).sqrt() * error


@zoo("diffusion_step")
def diffusion_step(full: bool) -> Prepared:
    width, context, size, groups = (64, 64, 32, 32) if full else (8, 12, 8, 4)
    calls = [
        (noise(1, 4, size, size, seed=t), torch.tensor([t]), noise(2, 7, context, seed=t + 1)) for t in (999, 500, 3)
    ]
    return Prepared(randomized(DenoisingStep(width, context, groups)), calls)


class LatentDecoder(nn.Module):
    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 2 * width, 3, padding=1)
        self.norm = nn.GroupNorm(groups, 2 * width)
        self.up = nn.ModuleList([nn.Conv2d(2 * width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)])
        self.last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        x = F.silu(self.norm(self.first(latents / 0.18215)))
        for conv in self.up:
            x = F.silu(conv(F.interpolate(x, scale_factor=2.0, mode="nearest")))
        image = (self.last(x) / 2 + 0.5).clamp(0, 1)
        return (image * 255).round().to(torch.uint8)


class FloatLatentDecoder(LatentDecoder):
    """Without the last rounding, on whose edge two right computations can differ by one."""

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        x = F.silu(self.norm(self.first(latents / 0.18215)))
        for conv in self.up:
            x = F.silu(conv(F.interpolate(x, scale_factor=2.0, mode="nearest")))
        return (self.last(x) / 2 + 0.5).clamp(0, 1)


@zoo("latent_decoder")
def latent_decoder(full: bool) -> Prepared:
    width, size, groups = (64, 32, 32) if full else (8, 8, 4)
    sizes = ((size, size), (3, 5), (size // 2, size))
    height, columns = Dim("height", min=2, max=size), Dim("columns", min=2, max=size)
    calls = [(noise(1, 4, h, w, seed=h),) for h, w in sizes]
    return Prepared(randomized(FloatLatentDecoder(width, groups)), calls, ({2: height, 3: columns},))
