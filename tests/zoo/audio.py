"""Speech models: Whisper's two halves, wav2letter, conformers, wav2vec2, WaveNet, voice activity."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.export import Dim

from .encoders import VOCABULARY
from .model import FirstOutput, Prepared, noise, randomized, tokens, zoo


def _whisper(full: bool) -> Any:
    from transformers import WhisperConfig, WhisperModel

    if full:  # whisper-tiny
        return WhisperModel(
            WhisperConfig(
                d_model=384,
                encoder_layers=4,
                decoder_layers=4,
                encoder_attention_heads=6,
                decoder_attention_heads=6,
                encoder_ffn_dim=1536,
                decoder_ffn_dim=1536,
            )
        )
    config = WhisperConfig(
        vocab_size=VOCABULARY,
        num_mel_bins=20,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=40,
        decoder_ffn_dim=40,
        max_source_positions=30,
        max_target_positions=24,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    return WhisperModel(config)


@zoo("whisper_encoder")
def whisper_encoder(full: bool) -> Prepared:
    """Convolutions over time, strided, then attention."""
    bins, frames = (80, 3000) if full else (20, 60)
    calls = [(noise(b, bins, frames, seed=b),) for b in ((1,) if full else (2, 1))]
    return Prepared(
        randomized(FirstOutput(_whisper(full).encoder)), calls, None if full else (({0: Dim("batch", min=1, max=2)},),)
    )


class WhisperDecoder(nn.Module):
    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, ids: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        hidden = self.decoder(input_ids=ids, encoder_hidden_states=states, use_cache=False, return_dict=False)[0]
        return hidden @ self.decoder.embed_tokens.weight.T


@zoo("whisper_decoder")
def whisper_decoder(full: bool) -> Prepared:
    below, width, source, longest = (51000, 384, 1500, 32) if full else (VOCABULARY, 32, 30, 11)
    calls = [
        (tokens(1, n, below=below, seed=n), noise(1, source, width, seed=n)) for n in (longest, 2, longest // 2 + 1)
    ]
    return Prepared(
        randomized(WhisperDecoder(_whisper(full).decoder)), calls, ({1: Dim("length", min=2, max=longest)}, None)
    )


class Wav2Letter(nn.Module):
    """Collobert 2016: convolutions over the waveform and over time, the widest with a kernel of 48."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv1d(1, width, 250, 160, 45),
            nn.ReLU(),
            nn.Conv1d(width, width, 48, 2, 23),
            nn.ReLU(),
        ]
        for _ in range(3):
            layers += [nn.Conv1d(width, width, 7, 1, 3), nn.ReLU()]
        layers += [nn.Conv1d(width, 8 * width, 32, 1, 16), nn.ReLU(), nn.Conv1d(8 * width, 8 * width, 1), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Conv1d(8 * width, classes, 1), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.log_softmax(self.body(x), dim=1)


@zoo("wav2letter")
def wav2letter(full: bool) -> Prepared:
    width, samples = (250, 16000 * 3) if full else (6, 160 * 40)
    longest = samples // 160
    frames = 160 * Dim("frames", min=10, max=longest)
    calls = [(noise(1, 1, 160 * n, seed=n),) for n in (longest, 10, longest // 2 + 1)]
    return Prepared(randomized(Wav2Letter(width, 29)), calls, ({2: frames},))


class Masked(nn.Module):
    """A speech encoder of transformers: features and a mask of the frames that are speech."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.model(features, attention_mask=mask, return_dict=False)[0]


@zoo("parakeet_encoder")
def parakeet_encoder(full: bool) -> Prepared:
    """A conformer with eightfold subsampling, relative positions and masks: that of the stock Parakeet export."""
    from transformers import ParakeetEncoder, ParakeetEncoderConfig

    if full:
        config = ParakeetEncoderConfig(
            hidden_size=512, num_hidden_layers=4, num_attention_heads=8, intermediate_size=2048
        )
        bins, longest = 80, 400
    else:
        config = ParakeetEncoderConfig(
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=4,
            intermediate_size=48,
            conv_kernel_size=5,
            num_mel_bins=16,
            subsampling_conv_channels=8,
            max_position_embeddings=64,
        )
        bins, longest = 16, 96
    calls = []
    for seed, length in enumerate((longest, 24, longest // 2)):
        mask = torch.ones(1, length, dtype=torch.bool)
        mask[:, length - 8 :] = False
        calls.append((noise(1, length, bins, seed=seed), mask))
    length = 8 * Dim("length", min=2, max=longest // 8)
    return Prepared(Masked(randomized(ParakeetEncoder(config))), calls, ({1: length}, {1: length}))


@zoo("wav2vec2")
def wav2vec2(full: bool) -> Prepared:
    """Group norms over the waveform's features, a grouped convolution of positions with weight normalization."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    if full:
        return Prepared(randomized(FirstOutput(Wav2Vec2Model(Wav2Vec2Config()))), [(noise(1, 16000),)])
    config = Wav2Vec2Config(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=48,
        conv_dim=[8, 12, 12],
        conv_stride=[5, 2, 2],
        conv_kernel=[10, 3, 2],
        num_feat_extract_layers=3,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=4,
        vocab_size=VOCABULARY,
    )
    return Prepared(randomized(FirstOutput(Wav2Vec2Model(config))), [(noise(1, 800, seed=i),) for i in range(2)])


class GatedBlock(nn.Module):
    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.conv = nn.Conv1d(width, 2 * width, 2, dilation=dilation)
        self.mix = nn.Conv1d(width, width, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        both = self.conv(nn.functional.pad(x, (self.dilation, 0)))
        value, gate = both.chunk(2, dim=1)
        made = self.mix(torch.tanh(value) * torch.sigmoid(gate))
        return x + made, made


class WaveNet(nn.Module):
    """Causal convolutions, dilated, with gates."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, width, 1)
        self.blocks = nn.ModuleList(GatedBlock(width, 1 << i) for i in range(depth))
        self.last = nn.Sequential(nn.ReLU(), nn.Conv1d(width, width, 1), nn.LeakyReLU(0.1), nn.Conv1d(width, 16, 1))

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        x = self.first(wave)
        total: torch.Tensor | None = None
        for block in self.blocks:
            x, made = block(x)
            total = made if total is None else total + made
        return self.last(total).softmax(1)


@zoo("wavenet")
def wavenet(full: bool) -> Prepared:
    width, depth, longest = (64, 10, 4000) if full else (6, 4, 48)
    calls = [(noise(1, 1, n, seed=n),) for n in (longest, longest // 4, longest // 2)]
    return Prepared(randomized(WaveNet(width, depth)), calls, ({2: Dim("samples", min=2, max=longest)},))


class Vocoder(nn.Module):
    """Like HiFi-GAN: transposed convolutions over time, and dilated ones with weight normalization."""

    def __init__(self, bins: int, width: int) -> None:
        super().__init__()
        norm = nn.utils.parametrizations.weight_norm
        self.first = norm(nn.Conv1d(bins, width, 7, padding=3))
        self.up = nn.ModuleList(
            [nn.ConvTranspose1d(width, width // 2, 8, 4, 2), nn.ConvTranspose1d(width // 2, width // 4, 4, 2, 1)]
        )
        self.mix = nn.ModuleList(
            nn.ModuleList(norm(nn.Conv1d(width // s, width // s, 3, dilation=d, padding=d)) for d in (1, 3))
            for s in (2, 4)
        )
        self.last = nn.Conv1d(width // 4, 1, 7, padding=3)

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        x = self.first(mel)
        for up, mix in zip(self.up, self.mix, strict=True):
            x = up(nn.functional.leaky_relu(x, 0.1))
            x = sum(conv(nn.functional.leaky_relu(x, 0.1)) for conv in mix) / 2 + x
        return torch.tanh(self.last(x))


@zoo("vocoder")
def vocoder(full: bool) -> Prepared:
    bins, width, longest = (80, 128, 100) if full else (10, 16, 13)
    calls = [(noise(1, bins, n, seed=n),) for n in (longest, 3, 8)]
    return Prepared(randomized(Vocoder(bins, width)), calls, ({2: Dim("frames", min=2, max=longest)},))


class VoiceActivity(nn.Module):
    """Like silero-vad: magnitudes of a Fourier transform by convolution, then an LSTM cell whose state is passed on."""

    def __init__(self, window: int, width: int) -> None:
        super().__init__()
        angles = torch.arange(window // 2 + 1)[:, None] * torch.arange(window)[None] * (2 * torch.pi / window)
        basis = torch.cat([torch.cos(angles), -torch.sin(angles)])
        self.register_buffer("basis", (basis * torch.hann_window(window))[:, None])
        self.step = window // 2
        bins = window // 2 + 1
        self.encode = nn.Sequential(
            nn.Conv1d(bins, width, 3, 1, 1), nn.ReLU(), nn.Conv1d(width, width, 3, 2, 1), nn.ReLU()
        )
        self.cell = nn.LSTMCell(width, width)
        self.score = nn.Linear(width, 1)

    def forward(self, wave: torch.Tensor, hidden: torch.Tensor, cell: torch.Tensor) -> tuple[torch.Tensor, ...]:
        padded = nn.functional.pad(wave, (self.step, self.step), mode="reflect")
        real, imaginary = nn.functional.conv1d(padded[:, None], self.basis, stride=self.step).chunk(2, dim=1)
        x = self.encode(torch.sqrt(real**2 + imaginary**2)).mean(-1)
        hidden, cell = self.cell(x, (hidden, cell))
        return torch.sigmoid(self.score(torch.relu(hidden))), hidden, cell


@zoo("voice_activity")
def voice_activity(full: bool) -> Prepared:
    window, width, samples = (256, 128, 512) if full else (16, 12, 64)
    calls = [(noise(1, samples, seed=i), noise(1, width, seed=i + 5), noise(1, width, seed=i + 9)) for i in range(2)]
    return Prepared(randomized(VoiceActivity(window, width)), calls)
