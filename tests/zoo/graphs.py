"""Nets over graphs and over points in space: messages along edges, neighbours, samples; of any number of nodes."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812, its usual name
from torch import nn
from torch.export import Dim

from .model import Inputs, Prepared, noise, randomized, zoo


def _edges(nodes: int, count: int, seed: int) -> torch.Tensor:
    """Pairs of nodes [2, count]."""
    return torch.randint(0, nodes, (2, count), generator=torch.Generator().manual_seed(seed))


def _graphs(module: nn.Module, width: int, *sizes: tuple[int, int]) -> Prepared:
    """Calls with other counts of nodes and edges; the first are the largest."""
    calls = [(noise(n, width, seed=n), _edges(n, e, n)) for n, e in sizes]
    nodes, edges = (Dim(name, min=2, max=most) for name, most in zip(("nodes", "edges"), sizes[0], strict=True))
    return Prepared(randomized(module), calls, ({0: nodes}, {1: edges}))


class GraphConvolution(nn.Module):
    """Kipf 2016: sums over edges, divided by degrees."""

    def __init__(self, inputs: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(inputs, hidden), nn.Linear(hidden, classes)])

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        source, target = edges[0], edges[1]
        degree = torch.zeros(x.shape[0]).index_add(0, target, torch.ones(target.shape[0])) + 1
        weight = (degree[source] * degree[target]).rsqrt()
        for layer in self.layers:
            made = layer(F.relu(x))
            x = torch.zeros_like(made).index_add(0, target, made[source] * weight[:, None]) + made / degree[:, None]
        return x.log_softmax(-1)


@zoo("graph_convolution")
def graph_convolution(full: bool) -> Prepared:
    if full:
        return _graphs(GraphConvolution(64, 128, 16), 64, (2000, 9000), (100, 300), (700, 9000))
    return _graphs(GraphConvolution(6, 8, 4), 6, (9, 20), (3, 5), (7, 20))


class GraphAttention(nn.Module):
    """Velickovic 2017: a softmax over the edges that meet in a node, by scattered maxima and sums."""

    def __init__(self, inputs: int, heads: int, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(inputs, heads * width)
        self.forth, self.back = (nn.Parameter(noise(heads, width, seed=s)) for s in (1, 2))
        self.heads, self.width = heads, width

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        source, target = edges[0], edges[1]
        nodes = x.shape[0]
        made = self.project(x).view(nodes, self.heads, self.width)
        score = F.leaky_relu((made * self.forth).sum(-1)[source] + (made * self.back).sum(-1)[target], 0.2)
        place = target[:, None].expand(-1, self.heads)
        most = torch.full((nodes, self.heads), -1e30).scatter_reduce(0, place, score, "amax")
        weight = (score - most[target]).exp()
        total = torch.zeros(nodes, self.heads).scatter_add(0, place, weight)
        weight = weight / (total[target] + 1e-16)
        out = torch.zeros(nodes, self.heads, self.width).index_add(0, target, made[source] * weight[..., None])
        mean = torch.zeros(nodes, self.heads).scatter_reduce(0, place, score, "mean", include_self=False)
        return F.elu(out.flatten(1)), mean


@zoo("graph_attention")
def graph_attention(full: bool) -> Prepared:
    if full:
        return _graphs(GraphAttention(64, 8, 16), 64, (2000, 9000), (100, 300), (700, 9000))
    return _graphs(GraphAttention(6, 2, 4), 6, (9, 20), (3, 5), (7, 20))


class GraphPooling(nn.Module):
    """Sum, maximum and mean over the nodes of each graph of a batch."""

    def __init__(self, width: int, graphs: int) -> None:
        super().__init__()
        self.mix = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.score = nn.Linear(3 * width, 3)
        self.graphs = graphs

    def forward(self, x: torch.Tensor, edges: torch.Tensor, graph: torch.Tensor) -> torch.Tensor:
        place = edges[1][:, None].expand(-1, x.shape[1])
        x = self.mix(1.3 * x + torch.zeros_like(x).scatter_add(0, place, x[edges[0]]))
        empty = torch.zeros(self.graphs, x.shape[1])
        owner = graph[:, None].expand(-1, x.shape[1])
        total = empty.scatter_add(0, owner, x)
        most = empty.scatter_reduce(0, owner, x, "amax", include_self=False)
        count = torch.zeros(self.graphs).scatter_add(0, graph, torch.ones(graph.shape[0])).clamp(min=1)
        return self.score(torch.cat([total, most, total / count[:, None]], 1))


@zoo("graph_pooling")
def graph_pooling(full: bool) -> Prepared:
    nodes, edges, width, graphs = (
        (600, 2000, 64, 32) if full else (9, 15, 6, 4)
    )  # the last graph of the thin one is empty
    owner = torch.arange(nodes) * 3 // nodes if not full else torch.arange(nodes) * graphs // nodes
    calls = [(noise(nodes, width, seed=i), _edges(nodes, edges, i), owner) for i in range(2)]
    return Prepared(randomized(GraphPooling(width, graphs)), calls)


class Neighbours(nn.Module):
    """Wang 2018 (DGCNN): a convolution over each point and its nearest ones."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(6, width, 1)
        self.count = count

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, axes, points = x.shape
        square = (x**2).sum(1, keepdim=True)
        near = (2 * x.transpose(1, 2) @ x - square - square.transpose(1, 2)).topk(self.count, dim=-1).indices
        flat = (near + torch.arange(batch).view(-1, 1, 1) * points).view(-1)
        rows = x.transpose(1, 2)
        found = rows.reshape(batch * points, axes)[flat].view(batch, points, self.count, axes)
        own = rows.unsqueeze(2).expand(-1, -1, self.count, -1)
        return F.leaky_relu(self.mix(torch.cat([found - own, own], -1).permute(0, 3, 1, 2)), 0.2).amax(-1)


@zoo("point_neighbours")
def point_neighbours(full: bool) -> Prepared:
    width, count, sizes = (64, 20, (512, 40, 300)) if full else (8, 4, (17, 5, 8))
    calls: list[Inputs] = [(noise(2, 3, n, seed=n),) for n in sizes]
    return Prepared(randomized(Neighbours(width, count)), calls, ({2: Dim("points", min=count, max=sizes[0])},))


class Sampled(nn.Module):
    """Qi 2017 (PointNet++): points far from each other, and a net over the first few within a ball around each."""

    def __init__(self, width: int, samples: int, count: int) -> None:
        super().__init__()
        self.mix = nn.Linear(3, width)
        self.samples, self.count = samples, count

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        batch, points, _ = x.shape
        chosen = [torch.zeros(batch, dtype=torch.long)]
        distance = torch.full((batch, points), 1e10)
        for _ in range(self.samples - 1):
            centre = x.gather(1, chosen[-1].view(batch, 1, 1).expand(-1, -1, 3))
            distance = torch.minimum(distance, ((x - centre) ** 2).sum(-1))
            chosen.append(distance.argmax(-1))
        places = torch.stack(chosen, 1)
        centres = x.gather(1, places[..., None].expand(-1, -1, 3))
        outside = torch.cdist(centres, x) > 1.3
        members = torch.arange(points).view(1, 1, -1).repeat(batch, self.samples, 1).masked_fill(outside, points)
        members = members.sort(-1).values[..., : self.count]
        members = torch.where(members == points, members[..., :1], members)
        found = x.gather(1, members.flatten(1)[..., None].expand(-1, -1, 3))
        found = found.view(batch, self.samples, self.count, 3) - centres[:, :, None]
        return places, F.relu(self.mix(found)).amax(2)


@zoo("point_sampling")
def point_sampling(full: bool) -> Prepared:
    width, samples, count, points = (64, 16, 16, 512) if full else (8, 4, 5, 11)
    return Prepared(randomized(Sampled(width, samples, count)), [(noise(2, points, 3, seed=i),) for i in range(2)])
