"""Recurrent nets: GRU, LSTM, plain; of one and of two directions; state handed on by the caller or kept in buffers."""

from __future__ import annotations

import torch
from torch import nn
from torch.export import Dim

from .model import Prepared, noise, randomized, tokens, zoo


class Tagger(nn.Module):
    """A recurrent net over embedded tokens, and a score for each token."""

    def __init__(self, net: nn.Module, width: int, outputs: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, width)
        self.net = net
        self.score = nn.Linear(outputs, 7)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.score(self.net(self.embed(ids))[0])


def _tagged(net: nn.Module, width: int, outputs: int, steps: int, batch: int = 2) -> Prepared:
    calls = [(tokens(b, steps, below=50, seed=b),) for b in (batch, 1)]
    return Prepared(randomized(Tagger(net, width, outputs)), calls, ({0: Dim("batch", min=1, max=batch)},))


@zoo("lstm")
def lstm(full: bool) -> Prepared:
    width, steps = (128, 32) if full else (12, 3)
    return _tagged(nn.LSTM(width, width, 2, batch_first=True), width, width, steps)


@zoo("bidirectional_lstm")
def bidirectional_lstm(full: bool) -> Prepared:
    width, steps = (128, 16) if full else (10, 4)
    return _tagged(nn.LSTM(width, width, 1, batch_first=True, bidirectional=True), width, 2 * width, steps)


@zoo("gru")
def gru(full: bool) -> Prepared:
    width, steps = (128, 32) if full else (12, 3)
    return _tagged(nn.GRU(width, width, 2, batch_first=True), width, width, steps)


@zoo("rnn")
def rnn(full: bool) -> Prepared:
    width, steps = (64, 16) if full else (12, 5)
    return _tagged(
        nn.RNN(width, width, 1, batch_first=True, nonlinearity="relu", bidirectional=True), width, 2 * width, steps
    )


class Streaming(nn.Module):
    """An LSTM one step at a time, whose state is handed in and out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.LSTM(width, width, 2)

    def forward(self, x: torch.Tensor, hidden: torch.Tensor, cell: torch.Tensor) -> tuple[torch.Tensor, ...]:
        out, (hidden, cell) = self.net(x, (hidden, cell))
        return out, hidden, cell


@zoo("streaming_lstm")
def streaming_lstm(full: bool) -> Prepared:
    width = 128 if full else 16
    calls = [
        (noise(1, 1, width, seed=i), noise(2, 1, width, seed=i + 3), noise(2, 1, width, seed=i + 6)) for i in range(2)
    ]
    return Prepared(randomized(Streaming(width)), calls)


class Remembering(nn.Module):
    """A GRU cell whose state is a buffer: each call goes on from the one before."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cell = nn.GRUCell(width, width)
        self.register_buffer("state", torch.zeros(1, width))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        state = self.cell(x, self.state)
        self.state.copy_(state)
        self.count.add_(1)
        return 2 * state, self.count + 0


@zoo("remembering_gru")
def remembering_gru(full: bool) -> Prepared:
    width = 128 if full else 12
    return Prepared(randomized(Remembering(width)), [(noise(1, width, seed=i),) for i in range(4)])


class MinimalSelectiveScan(nn.Module):
    """A state-space model's scan over the steps (Mamba's), unrolled, with a causal convolution before it."""

    def __init__(self, width: int, states: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.enter = nn.Linear(width, 2 * width)
        self.conv = nn.Conv1d(width, width, 3, padding=2, groups=width)
        self.select = nn.Linear(width, 2 * states + width)
        self.decay = nn.Parameter(torch.rand(width, states))
        self.leave = nn.Linear(width, width)
        self.states = states

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, gate = self.enter(x).chunk(2, -1)
        x = nn.functional.silu(self.conv(x.transpose(1, 2))[..., : self.steps].transpose(1, 2))
        write, read, step = self.select(x).split([self.states, self.states, x.shape[-1]], -1)
        step = nn.functional.softplus(step)
        keep = torch.exp(-step.unsqueeze(-1) * self.decay)
        put = torch.einsum("btc,bts,btc->btcs", step, write, x)
        state = torch.zeros_like(put[:, 0])
        outputs = []
        for t in range(self.steps):
            state = keep[:, t] * state + put[:, t]
            outputs.append(torch.einsum("bcs,bs->bc", state, read[:, t]))
        return self.leave(torch.stack(outputs, 1) * torch.sigmoid(gate))


@zoo("selective_scan")
def selective_scan(full: bool) -> Prepared:
    width, states, steps = (64, 16, 16) if full else (8, 4, 5)
    return Prepared(
        randomized(MinimalSelectiveScan(width, states, steps)), [(noise(2, steps, width, seed=i),) for i in range(2)]
    )
