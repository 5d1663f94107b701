"""Small programs of the kinds that bug reports are about: one construct each, of the language or of its edges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812, its usual name
from torch import Tensor, nn
from torch.export import Dim

from .files import VARIANTS
from .model import Inputs, Prepared, noise, tokens, zoo


class Lambda(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Any) -> Any:
        return self.function(*inputs)


def small(
    name: str, *calls: Inputs, dynamic: Any = None, variants: tuple[str, ...] = VARIANTS
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds a function as a model; it is exported with the inputs of the first call."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        def prepare(full: bool) -> Prepared:
            shapes = None if dynamic is None else (dynamic,)
            return Prepared(Lambda(function).eval(), list(calls), shapes)

        prepare.__module__ = __name__
        zoo(name, variants)(prepare)
        return function

    return register


def lengths(longest: int = 13) -> Dim:
    return Dim("length", min=2, max=longest)


def rows(*counts: int, width: int = 7) -> list[Inputs]:
    """float32 tensors of several heights; the first is the tallest."""
    return [(noise(n, width, seed=n),) for n in counts]


DYNAMIC_ROWS = ({0: Dim("rows", min=2, max=13)},)


@small("einsum_batched", (noise(2, 5, 7), noise(2, 7, 3, seed=1)), (noise(2, 5, 7, seed=2), noise(2, 7, 3, seed=3)))
def einsum_batched(a: Tensor, b: Tensor) -> Tensor:
    return torch.einsum("bij,bjk->bik", a, b)


@small("einsum_many", (noise(3, 4), noise(4, 5, seed=1), noise(5, seed=2), noise(2, 3, 4, seed=3)))
def einsum_many(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> tuple[Tensor, ...]:
    return (
        torch.einsum("ij,jk,k->i", a, b, c),
        torch.einsum("bij,ij->b", d, a),
        torch.einsum("bij->jb", d),
        torch.einsum("i,j->ij", c, c),
    )


@small("masked_fill_bool", (noise(4, 7), noise(4, 7, seed=1) > 0), (noise(4, 7, seed=2), noise(4, 7, seed=3) > 0.5))
def masked_fill_bool(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    return x.masked_fill(mask, float("-inf")).softmax(-1).nan_to_num(0.0), torch.where(~mask, x, x.new_zeros(()))


@small("masked_mean", (noise(3, 5, 4), tokens(3, 5, below=3) > 1), dynamic=({1: lengths(5)}, {1: lengths(5)}))
def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    weight = mask.unsqueeze(-1).float()
    return (x * weight).sum(1) / weight.sum(1).clamp_min(1.0)


@small("masked_select", (noise(4, 5),), variants=("portable",))
def masked_select(x: Tensor) -> Tensor:
    return torch.masked_select(x, x > 0)


@small("nonzero_rows", (noise(5, 3),), variants=("portable",))
def nonzero_rows(x: Tensor) -> Tensor:
    return (x.sum(1) > 0).nonzero()


@small("topk_sorted", *rows(11, 3, 7, width=9), dynamic=({0: Dim("rows", min=2, max=11)},))
def topk_sorted(x: Tensor) -> tuple[Tensor, Tensor]:
    values, places = torch.topk(x, 3, dim=-1)
    return values, places


@small("topk_smallest", (noise(3, 8, 2),))
def topk_smallest(x: Tensor) -> tuple[Tensor, Tensor]:
    values, places = torch.topk(x, 2, dim=1, largest=False)
    return values, places


@small("sort_stable", (tokens(4, 9, below=4).float(),))
def sort_stable(x: Tensor) -> tuple[Tensor, ...]:
    values, order = torch.sort(x, dim=-1, stable=True, descending=True)
    return values, order, torch.argsort(x, dim=0, stable=True)


@small("moe_routing", (noise(6, 8), noise(4, 8, seed=1), noise(4, 8, 8, seed=2)))
def moe_routing(x: Tensor, router: Tensor, experts: Tensor) -> Tensor:
    weight, chosen = torch.topk((x @ router.T).softmax(-1), 2)
    weight = weight / weight.sum(-1, keepdim=True)
    mask = F.one_hot(chosen, 4).to(x.dtype)
    gates = (mask * weight[..., None]).sum(1)
    return torch.einsum("te,eio,ti->to", gates, experts, x)


@small("gathered_experts", (noise(6, 8), tokens(6, 2, below=4), noise(4, 8, 8, seed=2)))
def gathered_experts(x: Tensor, chosen: Tensor, experts: Tensor) -> Tensor:
    return torch.einsum("tkio,ti->tko", experts[chosen], x)


class Cond(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda v: v.sin() + 1, lambda v: v.cos() * 2, (x,))


@zoo("cond")
def cond(full: bool) -> Prepared:
    return Prepared(Cond(), [(noise(5).abs(),), (-noise(5).abs(),)])


class CondShape(nn.Module):
    """A choice by a size, and one that an integer input makes."""

    def __init__(self) -> None:
        super().__init__()
        self.long, self.short = nn.Linear(7, 7), nn.Linear(7, 7)

    def forward(self, x: Tensor, flag: Tensor) -> Tensor:
        return torch.cond(flag > 2, lambda v: self.long(v), lambda v: self.short(v), (x,))


@zoo("cond_modules")
def cond_modules(full: bool) -> Prepared:
    return Prepared(CondShape().eval(), [(noise(3, 7), torch.tensor(5)), (noise(3, 7, seed=1), torch.tensor(1))])


class Mapped(nn.Module):
    def forward(self, xs: Tensor, y: Tensor) -> Tensor:
        from torch._higher_order_ops.map import map as torch_map

        return torch_map(lambda x, y: torch.tanh(x @ y) + x.mean(), xs, y)


@zoo("map")
def mapped(full: bool) -> Prepared:
    return Prepared(Mapped(), [(noise(4, 3, 5), noise(5, 5, seed=1)), (noise(4, 3, 5, seed=2), noise(5, 5, seed=3))])


class Scan(nn.Module):
    def forward(self, xs: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        from torch._higher_order_ops.scan import scan

        def step(carry: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            made = torch.tanh(carry + x)
            return made, made * 2

        return scan(step, start, xs)


@zoo("scan")
def scanned(full: bool) -> Prepared:
    return Prepared(Scan(), [(noise(4, 5), noise(5, seed=1))])


class Bags(nn.Module):
    def __init__(self, mode: str) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(20, 6, mode=mode)

    def forward(self, ids: Tensor, offsets: Tensor) -> Tensor:
        return self.bag(ids, offsets)


@zoo("embedding_bag_sum")
def embedding_bag_sum(full: bool) -> Prepared:
    return Prepared(
        Bags("sum"),
        [(tokens(9, below=20), torch.tensor([0, 2, 2, 7])), (tokens(9, below=20, seed=1), torch.tensor([0, 1, 5, 8]))],
    )


@zoo("embedding_bag_mean")
def embedding_bag_mean(full: bool) -> Prepared:
    return Prepared(Bags("mean"), [(tokens(9, below=20), torch.tensor([0, 2, 3, 7]))])


@small("embedding_bag_2d", (tokens(3, 4, below=10), noise(10, 5), noise(3, 4, seed=1)))
def embedding_bag_2d(ids: Tensor, table: Tensor, weights: Tensor) -> Tensor:
    return F.embedding_bag(ids, table, per_sample_weights=weights, mode="sum")


@small("int64_outputs", (tokens(3, 5, below=1000), noise(3, 5)), dynamic=({0: lengths(3)}, {0: lengths(3)}))
def int64_outputs(ids: Tensor, x: Tensor) -> tuple[Tensor, ...]:
    return ids * 3 + 1, x.argmax(-1), ids.sum(), (ids % 7).to(torch.int64), torch.arange(ids.shape[0])


@small("int32_arithmetic", (tokens(4, 3, below=50).int(), tokens(4, 3, below=9, seed=1).int()))
def int32_arithmetic(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    return a // b, a % b, a / b, torch.div(-a, b, rounding_mode="trunc"), a.bitwise_xor(b), a << 2, -a >> 1, a.pow(2)


@small("float64_inputs", (noise(3, 4).double(),), (noise(3, 4, seed=1).double(),))
def float64_inputs(x: Tensor) -> tuple[Tensor, Tensor]:
    return (x * 2 + 1).to(torch.float32), x.sum(0)


@small("float64_through", (noise(3, 4).double(), noise(4, 5, seed=2).double()))
def float64_through(x: Tensor, w: Tensor) -> Tensor:
    return torch.softmax(x @ w, -1)


@small("float16_arithmetic", (noise(3, 8).half(), noise(8, 5, seed=1).half()))
def float16_arithmetic(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    return F.gelu(x @ w), x.float().mean(-1)


@small(
    "uint8_image",
    (tokens(1, 3, 6, 5, below=256).to(torch.uint8),),
    (tokens(1, 3, 6, 5, below=256, seed=1).to(torch.uint8),),
)
def uint8_image(image: Tensor) -> Tensor:
    x = image.to(torch.float32) / 255
    mean = torch.tensor([0.485, 0.456, 0.406])[None, :, None, None]
    return (x - mean) / torch.tensor([0.229, 0.224, 0.225])[None, :, None, None]


@small("int8_weights", (noise(3, 8),))
def int8_weights(x: Tensor) -> Tensor:
    weight = torch.arange(-20, 20, dtype=torch.int8).reshape(5, 8)
    return x @ (weight.to(torch.float32) * 0.05).T


@small("bool_masks", (noise(3, 5) > 0, noise(3, 5, seed=1) > 0))
def bool_masks(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    return a & b, a | ~b, a ^ b, a.any(-1), b.all(0), a.sum(-1), a.any(), torch.logical_xor(a, b), a == b


@small("bool_to_index", (noise(4, 5),))
def bool_to_index(x: Tensor) -> Tensor:
    y = x.clone()
    y[y < 0] = 0.5
    return y


@small("index_by_constant_mask", (noise(4, 5, 6),), variants=("portable",))
def index_by_constant_mask(x: Tensor) -> Tensor:
    return x[torch.tensor([True, False, True, False])]


@small("index_assign", (noise(6, 5), torch.tensor([0, 3, 5])), (noise(6, 5, seed=1), torch.tensor([1, 1, 2])))
def index_assign(x: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    y = x.clone()
    y[index] = 2.0
    z = x.clone()
    z[:, 1:3] = x[:, :2]
    return y, z, x[index, torch.tensor([0, 1, 2])]


@small("index_accumulate", (noise(6, 5), torch.tensor([0, 3, 3]), noise(3, 5, seed=1)))
def index_accumulate(x: Tensor, index: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
    return x.index_add(0, index, source), x.index_put((index,), source, accumulate=True)


@small("index_forms", (noise(4, 5, 6), torch.tensor([[0, 2], [3, 1]]), torch.tensor([4, 0])))
def index_forms(x: Tensor, i: Tensor, j: Tensor) -> tuple[Tensor, ...]:
    return (
        x[i],
        x[:, j],
        x[i, j],
        x[:, :, i],
        x[i, :, j],
        x[..., -1],
        x[None, 1],
    )


@small("gather_scatter", (noise(4, 6), tokens(4, 3, below=6), noise(4, 3, seed=1)))
def gather_scatter(x: Tensor, index: Tensor, source: Tensor) -> tuple[Tensor, ...]:
    return (
        x.gather(1, index),
        x.scatter(1, index[:, :1], source),
        x.scatter(1, index[:, :1], 7.0),
        x.scatter_add(1, index, source),
        torch.zeros(6, 6).scatter_reduce(0, index, source, "amax", include_self=False),
    )


@small("take_along_dim", (noise(4, 6), tokens(4, 6, below=6)))
def take_along_dim(x: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    return torch.take_along_dim(x, index, 1), torch.take(x, index[0])


@small("one_hot_bincount", (tokens(7, below=5),), (tokens(7, below=5, seed=1),))
def one_hot_bincount(ids: Tensor) -> tuple[Tensor, Tensor]:
    hot = F.one_hot(ids, 5)
    return hot, hot.sum(0)


class ChannelsLast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 4, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


@zoo("channels_last")
def channels_last(full: bool) -> Prepared:
    module = ChannelsLast().eval().to(memory_format=torch.channels_last)
    calls = [(noise(2, 3, 8, 6, seed=i).to(memory_format=torch.channels_last),) for i in range(2)]
    return Prepared(module, calls)


@small("to_channels_last", (noise(2, 3, 4, 5),))
def to_channels_last(x: Tensor) -> tuple[Tensor, Tensor]:
    y = x.to(memory_format=torch.channels_last) * 2
    return y, y.contiguous().view(2, -1)


@small("dynamic_views", *rows(13, 2, 6, width=12), dynamic=DYNAMIC_ROWS)
def dynamic_views(x: Tensor) -> tuple[Tensor, ...]:
    n = x.shape[0]
    y = x.view(n, 3, 4).transpose(1, 2)
    return y.reshape(n * 4, 3), y.flatten(), x.unflatten(1, (2, -1)), x.repeat(2, 1), x.expand(2, n, 12).sum(0), x[1:]


@small(
    "dynamic_arange",
    *[(tokens(1, n, below=9, seed=n),) for n in (13, 2, 7)],
    dynamic=({1: lengths()},),
    variants=("portable",),
)
def dynamic_arange(ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    length = ids.shape[1]
    position = torch.arange(length)
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    return position.expand(1, -1) + ids, causal, torch.full((length,), float(3)) * length


@small("symbolic_numbers", *rows(13, 2, 5), dynamic=DYNAMIC_ROWS, variants=("portable",))
def symbolic_numbers(x: Tensor) -> tuple[Tensor, Tensor]:
    n = x.shape[0]
    return x / n + n // 2, x * n


@small("dynamic_cat_pad", *rows(13, 2, 7), dynamic=DYNAMIC_ROWS)
def dynamic_cat_pad(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.cat([x, x[:1], x], 0), F.pad(x, (1, 2, 0, 1), value=0.5), torch.stack([x, -x], 1)


@small("reductions", (noise(3, 4, 5),))
def reductions(x: Tensor) -> tuple[Tensor, ...]:
    return (
        x.var(-1),
        x.std((0, 2), correction=0),
        x.max(1).values,
        x.max(1).indices,
        x.min(),
        x.mean((1, 2), keepdim=True),
        x.prod(0),
        x.logsumexp(1),
        x.norm(dim=-1),
        x.abs().amax((0, 1)),
        x.median(-1).values,
    )


@small("cumulative", (noise(3, 5), tokens(3, 5, below=9)))
def cumulative(x: Tensor, ids: Tensor) -> tuple[Tensor, ...]:
    return x.cumsum(1), ids.cumsum(0), (ids > 3).cumsum(1), x.cumprod(1), x.logcumsumexp(1), x.cummax(1).values


@small("activations", (3 * noise(5, 7),))
def activations(x: Tensor) -> tuple[Tensor, ...]:
    return (
        F.silu(x),
        F.softplus(x),
        F.elu(x),
        F.selu(x),
        F.celu(x),
        F.mish(x),
        F.hardswish(x),
        F.hardsigmoid(x),
        F.relu6(x),
        F.gelu(x, approximate="tanh"),
        F.logsigmoid(x),
        F.softsign(x),
        F.tanhshrink(x),
        F.hardshrink(x),
        F.softshrink(x),
        F.threshold(x, 0.1, 20.0),
        F.glu(x[:, :6]),
    )


@small("special_functions", (noise(5, 7),))
def special_functions(x: Tensor) -> tuple[Tensor, ...]:
    y = x.abs() + 0.1
    return (
        torch.erf(x),
        torch.log1p(y),
        torch.expm1(x),
        torch.log2(y),
        torch.log10(y),
        torch.atan2(x, y),
        torch.tan(x),
        torch.asin(x.clamp(-0.9, 0.9)),
        torch.sinh(x),
        torch.acosh(y + 1),
        torch.sign(x),
        torch.floor(x),
        torch.ceil(x),
        torch.trunc(x),
        torch.frac(x),
        torch.round(10 * x),
        torch.reciprocal(y),
        torch.hypot(x, y),
        torch.fmod(x, 0.3),
        torch.remainder(x, 0.3),
        torch.isnan(x / 0 * 0),
        torch.isinf(x / 0),
        torch.exp2(x),
        torch.lerp(x, y, 0.3),
    )


@small("nan_and_inf", (torch.tensor([1.0, float("nan"), float("inf"), -float("inf"), 0.0, -0.0]),))
def nan_and_inf(x: Tensor) -> tuple[Tensor, ...]:
    return (
        x.nan_to_num(9.0, 8.0, -8.0),
        x.isfinite(),
        x.relu(),
        x.max(),
        x.clamp(-1, 1),
        x.sort().values,
        x > 0,
        x.argmax(),
    )


@small("rolled_flipped", (noise(3, 4, 5),), variants=("portable",))
def rolled_flipped(x: Tensor) -> tuple[Tensor, ...]:
    return (
        torch.roll(x, (1, -2), (0, 2)),
        torch.flip(x, (1, 2)),
        torch.rot90(x, 1, (1, 2)),
        x.unfold(2, 3, 2),
        x.diff(dim=1),
    )


@small("triangles", (noise(4, 5),))
def triangles(x: Tensor) -> tuple[Tensor, ...]:
    return torch.tril(x), torch.triu(x, 1), torch.diagonal(x), torch.diag_embed(x[:2]), torch.eye(3) + x[:3, :3]


@small("splits", (noise(6, 7),))
def splits(x: Tensor) -> tuple[Tensor, ...]:
    a, b, c = x.split([1, 2, 3])
    return *x.unbind(0)[:2], a, b + 1, c, *x.chunk(3, 1), *torch.tensor_split(x, (2, 5), 1)


@small("pads", (noise(1, 2, 4, 5),))
def pads(x: Tensor) -> tuple[Tensor, ...]:
    return (
        F.pad(x, (1, 2, 2, 1), "reflect"),
        F.pad(x, (1, 2, 2, 1), "replicate"),
        F.pad(x, (2, 1, 0, 3), "circular"),
        F.pad(x, (-1, 1)),
    )


@small("interpolations", (noise(1, 2, 5, 4),), variants=("portable",))
def interpolations(x: Tensor) -> tuple[Tensor, ...]:
    return (
        F.interpolate(x, (7, 9), mode="bilinear", align_corners=False),
        F.interpolate(x, scale_factor=2.0, mode="nearest"),
        F.interpolate(x, (3, 3), mode="nearest-exact"),
        F.interpolate(x, (9, 7), mode="bicubic", align_corners=False),
        F.interpolate(x, (3, 2), mode="area"),
        F.interpolate(x, (4, 3), mode="bilinear", antialias=True),
        F.interpolate(x[0], 7, mode="linear"),
    )


@small("pools", (noise(1, 2, 7, 6),))
def pools(x: Tensor) -> tuple[Tensor, ...]:
    return (
        F.max_pool2d(x, 3, 2, 1),
        F.max_pool2d(x, 2, return_indices=True)[1],
        F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
        F.avg_pool2d(x, 2, ceil_mode=True),
        F.adaptive_avg_pool2d(x, (3, 4)),
        F.adaptive_max_pool2d(x, 2),
        F.max_pool1d(x[0], 3),
        F.avg_pool1d(x[0], 2),
        F.lp_pool2d(x.abs(), 2.0, 2),
    )


@small("volumes", (noise(1, 2, 4, 5, 3), noise(3, 2, 2, 2, 2, seed=1)))
def volumes(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return F.conv3d(x, weight, padding=1), F.max_pool3d(x, 2), F.avg_pool3d(x, 2)


@small("convolutions", (noise(2, 4, 9), noise(6, 2, 3, seed=1), noise(4, 3, 4, seed=2)))
def convolutions(x: Tensor, weight: Tensor, transposed: Tensor) -> tuple[Tensor, Tensor]:
    return F.conv1d(x, weight, groups=2, dilation=2, padding="same"), F.conv_transpose1d(
        x, transposed, stride=2, output_padding=1
    )


@small("folded", (noise(1, 2, 6, 6),))
def folded(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    patches = F.unfold(x, 2, stride=2)
    return patches, F.fold(patches, (6, 6), 2, stride=2), F.pixel_unshuffle(x, 2)


@small("norms", (noise(2, 6, 5),))
def norms(x: Tensor) -> tuple[Tensor, ...]:
    return (
        F.group_norm(x, 3),
        F.instance_norm(x),
        F.layer_norm(x, (5,)),
        F.rms_norm(x, (5,)),
        F.normalize(x, dim=1),
        F.local_response_norm(x, 2),
    )


@small("distances", (noise(5, 3), noise(4, 3, seed=1)))
def distances(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.cdist(a, b), F.cosine_similarity(a[:, None], b[None], dim=-1), F.pairwise_distance(a[:4], b)


@small("losses", (noise(5, 4), tokens(5, below=4), noise(5, 4, seed=1)))
def losses(x: Tensor, label: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    return (
        F.cross_entropy(x, label),
        F.mse_loss(x, y),
        F.smooth_l1_loss(x, y),
        F.binary_cross_entropy_with_logits(x, y.sigmoid()),
        F.kl_div(x.log_softmax(-1), y.softmax(-1), reduction="batchmean"),
    )


@small("matrices", (noise(3, 4, 5), noise(5, seed=1), noise(3, 5, 2, seed=2), noise(4, seed=3)))
def matrices(a: Tensor, v: Tensor, b: Tensor, w: Tensor) -> tuple[Tensor, ...]:
    return (
        a @ v,
        a[0] @ v,
        torch.bmm(a, b),
        torch.baddbmm(a @ b, a, b, beta=0.5, alpha=2.0),
        torch.outer(v, w),
        v.dot(v),
        torch.addmv(w, a[0], v),
        w @ a,
    )


@small("linear_algebra", (noise(4, 4) + 4 * torch.eye(4),))
def linear_algebra(x: Tensor) -> tuple[Tensor, ...]:
    return (
        x.trace(),
        torch.linalg.vector_norm(x, 3.0),
        torch.kron(x[:2, :2], x[:2]),
        torch.cross(x[:, :3], x[:, 1:], dim=1),
        x.mT,
    )


@small(
    "sdpa_masks", (noise(1, 2, 5, 8), noise(1, 2, 7, 8, seed=1), noise(1, 2, 7, 8, seed=2), noise(5, 7, seed=3) > 0.5)
)
def sdpa_masks(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
    return (
        F.scaled_dot_product_attention(q, k, v, mask),
        F.scaled_dot_product_attention(q, k, v, mask.float()),
        F.scaled_dot_product_attention(q, k, v, is_causal=True),
        F.scaled_dot_product_attention(q, k[:, :1], v[:, :1], scale=0.3, enable_gqa=True),
    )


@small("bucketized", (noise(9), torch.tensor([-1.0, 0.0, 1.0])))
def bucketized(x: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
    return torch.bucketize(x, edges), torch.searchsorted(edges, x, right=True)


@small("repeat_interleave", (noise(3, 4),))
def repeat_interleave(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x.repeat_interleave(2, dim=1), x.tile((2, 1, 2)), x.movedim(0, 1)


@small("zero_sized", (noise(0, 4), noise(3, 4)))
def zero_sized(empty: Tensor, x: Tensor) -> tuple[Tensor, ...]:
    return torch.cat([empty, x]), empty * 2, empty.sum(0), x[3:], empty @ x.T


@small("zero_dimensional", (torch.tensor(2.5), noise(3)))
def zero_dimensional(a: Tensor, x: Tensor) -> tuple[Tensor, ...]:
    return a * x, a + 1, x.sum() / a, a.view(1, 1), torch.stack([a, a]), a.to(torch.int64)


@small("six_dimensional", (noise(2, 1, 3, 2, 2, 3),))
def six_dimensional(x: Tensor) -> tuple[Tensor, ...]:
    return x.permute(5, 0, 3, 1, 2, 4), x.sum((1, 3)), x + x[:, :, :1], x.flatten(2, 4).softmax(2)


@small("plain_numbers", (noise(3, 4), 3, 0.5, True), (noise(3, 4, seed=1), 3, 0.5, True))
def plain_numbers(x: Tensor, n: int, scale: float, flag: bool) -> tuple[Tensor, int]:
    return (x * scale + n if flag else x), n


@small("outputs_repeat", (noise(3, 4),))
def outputs_repeat(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    y = x + 1
    return y, y, x, y.clone()


@small("nested_inputs", (noise(3), [noise(3, seed=1), noise(3, seed=2)], {"scale": noise(3, seed=3)}))
def nested_inputs(x: Tensor, listed: list[Tensor], named: dict[str, Tensor]) -> dict[str, Any]:
    return {"sum": x + listed[0], "rest": (listed[1] * named["scale"],)}


@small("random_seedless", (noise(3, 4),))
def random_seedless(x: Tensor) -> Tensor:
    return F.dropout(x, 0.5, training=False) + torch.zeros_like(x)


@small("in_place", (noise(3, 4),))
def in_place(x: Tensor) -> Tensor:
    y = x.clone()
    y.add_(1).mul_(2)
    y[0].zero_()
    y[:, 1] += 3
    return y.relu_()


@small("clamps", (noise(4, 5), noise(5, seed=1)))
def clamps(x: Tensor, low: Tensor) -> tuple[Tensor, ...]:
    return (
        x.clamp(min=low),
        x.clamp(-0.5, 0.5),
        torch.minimum(x, low),
        x.clamp_max(0.2),
        (x * 10).to(torch.int32).clamp(-3, 3),
    )


@small("promotions", (tokens(3, 4, below=9), noise(3, 4), noise(3, 4, seed=1) > 0, noise(3, 4, seed=2).half()))
def promotions(i: Tensor, x: Tensor, b: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    return i + x, b * x, b + i, i / 2, i * 0.5, h + x, x > i, torch.where(b, i, x), h * 2 + i


class Counting(nn.Module):
    """A buffer of integers and one of floats that calls change."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(4))
        self.register_buffer("step", torch.zeros(1, dtype=torch.int64))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.total.mul_(0.5).add_(x)
        self.step += 1
        return self.total * 1.0, self.step * 10


@zoo("counting")
def counting(full: bool) -> Prepared:
    return Prepared(Counting().eval(), [(noise(4, seed=i),) for i in range(3)])


class RingBuffer(nn.Module):
    """A cache that is written at a position given as a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("cache", torch.zeros(1, 2, 6, 4))

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        self.cache[:, :, position] = x
        return self.cache.sum(2) + 0


@zoo("ring_buffer")
def ring_buffer(full: bool) -> Prepared:
    return Prepared(RingBuffer(), [(noise(1, 2, 1, 4, seed=i), torch.tensor([p])) for i, p in enumerate((0, 1, 5, 2))])


class TwoMethods(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(6, 6)
        self.encode_only, self.decode_only = nn.Linear(6, 3), nn.Linear(3, 6)

    def encode(self, x: Tensor) -> Tensor:
        return self.encode_only(torch.relu(self.shared(x)))

    def decode(self, code: Tensor) -> Tensor:
        return self.shared(torch.relu(self.decode_only(code)))


class Encode(nn.Module):
    def __init__(self, both: TwoMethods) -> None:
        super().__init__()
        self.both = both

    def forward(self, x: Tensor) -> Tensor:
        return self.both.encode(x)


class Decode(Encode):
    def forward(self, x: Tensor) -> Tensor:
        return self.both.decode(x)


@zoo("two_methods")
def two_methods(full: bool) -> Prepared:
    both = TwoMethods().eval()
    calls: list[Inputs] = [("encode", noise(2, 6)), ("decode", noise(2, 3, seed=1)), ("encode", noise(2, 6, seed=2))]
    return Prepared(both, calls, methods={"encode": Encode(both), "decode": Decode(both)})
