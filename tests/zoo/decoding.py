"""What follows a model's logits: greedy CTC, the best path of a CRF, a step of a beam search, filters of sampling."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812, its usual name
from torch import nn
from torch.export import Dim

from .model import Prepared, noise, tokens, zoo


class GreedyCTC(nn.Module):
    """The best label of each frame without repeats and blanks, moved to the front."""

    def forward(self, logits: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
        best = logits.argmax(-1)
        frames = best.shape[1]
        before = F.pad(best[:, :-1], (1, 0), value=-1)
        keep = (best != before) & (best != 0) & (torch.arange(frames)[None] < lengths[:, None])
        place = torch.where(keep, keep.long().cumsum(1) - 1, torch.full_like(best, frames))
        text = F.pad(torch.zeros_like(best), (0, 1)).scatter(1, place, best)[:, :-1]
        return text, keep.sum(1), logits.log_softmax(-1).amax(-1).sum(1)


@zoo("ctc_greedy")
def ctc_greedy(full: bool) -> Prepared:
    labels, sizes = (128, (500, 20, 333)) if full else (5, (13, 3, 8))
    calls = [(noise(2, n, labels, seed=n), torch.tensor([n, n - 1])) for n in sizes]
    return Prepared(GreedyCTC(), calls, ({1: Dim("frames", min=3, max=sizes[0])}, None))


class BestPath(nn.Module):
    """Viterbi's path through a linear-chain CRF, its score, and the logarithm of the sum over all paths."""

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.follows = nn.Parameter(noise(labels, labels))

    def forward(self, scores: torch.Tensor) -> tuple[torch.Tensor, ...]:
        best = total = scores[:, 0]
        origins = []
        for step in scores.unbind(1)[1:]:
            most, origin = (best[:, :, None] + self.follows).max(1)
            best = most + step
            total = torch.logsumexp(total[:, :, None] + self.follows, 1) + step
            origins.append(origin)
        path = [best.argmax(1)]
        for origin in reversed(origins):
            path.append(origin.gather(1, path[-1][:, None]).squeeze(1))
        return torch.stack(path[::-1], 1), best.amax(1), total.logsumexp(1)


@zoo("crf_viterbi")
def crf_viterbi(full: bool) -> Prepared:
    labels, steps = (32, 24) if full else (4, 5)
    return Prepared(BestPath(labels).eval(), [(noise(3, steps, labels, seed=i),) for i in range(2)])


class BeamStep(nn.Module):
    """A penalty for tokens that were said, the best continuations of all beams, and their caches in that order.

    Beside it a draw from the most likely tokens that make up ``top_p``, with uniform numbers as an input.
    """

    def __init__(self, beams: int, top_k: int, top_p: float) -> None:
        super().__init__()
        self.beams, self.top_k, self.top_p = beams, top_k, top_p

    def forward(
        self, logits: torch.Tensor, score: torch.Tensor, said: torch.Tensor, cache: torch.Tensor, uniform: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        old = logits.gather(1, said)
        logits = logits.scatter(1, said, torch.where(old < 0, old * 1.2, old / 1.2))
        likely, order = torch.sort(logits, descending=True)
        chance = likely.softmax(-1)
        unlikely = torch.zeros_like(logits, dtype=torch.bool).scatter(1, order, chance.cumsum(-1) - chance > self.top_p)
        drawn = (logits.masked_fill(unlikely, float("-inf")).softmax(-1) / -torch.log(uniform)).argmax(-1)
        least = logits.topk(self.top_k).values[:, -1:]
        total = logits.masked_fill(logits < least, float("-inf")).log_softmax(-1) + score[:, None]
        best, place = total.flatten().topk(self.beams)
        beam, token = place // logits.shape[1], place % logits.shape[1]
        return best, token, torch.cat([said[beam], token[:, None]], 1), cache.index_select(0, beam), drawn


@zoo("beam_step")
def beam_step(full: bool) -> Prepared:
    vocabulary, length = (32000, 40) if full else (11, 4)
    calls = [
        (
            noise(3, vocabulary, seed=i),
            noise(3, seed=i + 1),
            tokens(3, length, below=vocabulary, seed=i),
            noise(3, 2, length, seed=i + 2),
            noise(3, vocabulary, seed=i + 3).sigmoid(),
        )
        for i in range(2)
    ]
    return Prepared(BeamStep(3, 5, 0.8), calls)
