"""How the tokens of many rows are drawn: what a caller says of each, and the words that kernels read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidInputError
from ..shapes import ceil_div
from ..values import INT32_MAX
from . import reference

MOST_LIKELIEST = 20  # tokens of a row whose log probabilities can be told
CHANGE_WORDS = 4  # token, factor where positive, factor where not, shift

# Words of a row: ``struct Draw`` of draw.wgsl.
DRAW_WORDS = 14
SEED, POSITION, KINDS = slice(0, 2), 2, 3
TEMPERATURE, INVERSE, MARGIN = 4, 5, 6
TOP_K, SHARE, LEAST_WEIGHT = 7, 8, 9
FIRST_CHANGE, LAST_CHANGE, MASK, LIKELIEST = 10, 11, 12, 13

# The range of what a draw says in numbers.
_NAMES = "position", "temperature", "top_k", "top_p", "min_p"
_LEAST = np.array([0, 0, 0, 5e-324, 0])
_MOST = np.array([INT32_MAX, np.finfo(np.float64).max, 2**53, 1, 1])

# What rows need, as bits of KINDS.
NOISE, FILTERS, CHANGES, MASKS, LOGPROBS, TOP_KS, PLAIN = 1, 4, 8, 16, 32, 64, 128
EVERYTHING = NOISE | FILTERS | CHANGES | MASKS | LOGPROBS | TOP_KS | PLAIN


@dataclass(frozen=True)
class LogitChanges:
    """What is done to the logits of some tokens.

    ``tokens`` int32 [n], each once. ``penalty`` float32 [n]: what their logits are divided by where positive, and
    multiplied by where not; 1 for none. ``shift`` float32 [n]: what is added then.
    """

    tokens: NDArray[np.int32]
    penalty: NDArray[np.float32]
    shift: NDArray[np.float32]


@dataclass(frozen=True)
class Draw:
    """How the token after one row of logits is drawn.

    ``position``: where that token stands in its text; with ``seed``, below 2^64, it decides the noise. ``temperature``
    0 takes the likeliest token. ``top_k`` 0, ``top_p`` 1 and ``min_p`` 0 keep all tokens. ``changes`` of logits come
    before all else. ``allowed`` uint32 [ceil(V / 32)]: token t is bit t % 32 of word t // 32; others have logits of
    negative infinity. ``logprobs``: None for none; k, up to 20, for the log probabilities of the drawn token and of the
    k likeliest ones, which are of the logits before any change.
    """

    position: int
    seed: int = 0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    changes: LogitChanges | None = None
    allowed: NDArray[np.uint32] | None = None
    logprobs: int | None = None


@dataclass(frozen=True)
class PackedDraws:
    """Draws as kernels read them: ``rows`` int32 [R, 14], ``changes`` int32 [N, 4], ``masks`` int32 [M, ceil(V / 32)].

    N and M are 0 or powers of two, so that they seldom change from step to step.
    """

    rows: NDArray[np.int32]
    changes: NDArray[np.int32]
    masks: NDArray[np.int32]


def packed(draws: Sequence[Draw], vocab: int) -> PackedDraws:
    """The words of ``draws``.

    Raises InvalidInputError for values and tokens out of range, and for a mask that allows nothing.
    """
    words = np.zeros((len(draws), DRAW_WORDS), np.uint32)
    if not draws:
        return PackedDraws(words.view(np.int32), _no_changes(), _no_masks(vocab))
    numbers = np.array([(d.position, d.temperature, d.top_k, d.top_p, d.min_p) for d in draws], np.float64)
    fits = (numbers >= _LEAST) & (numbers <= _MOST)
    if not fits.all():
        row, column = np.argwhere(~fits)[0]
        raise InvalidInputError(f"a token cannot be drawn with {_NAMES[column]} {getattr(draws[row], _NAMES[column])}")
    position, temperature, top_k, top_p, min_p = numbers.T
    words[:, POSITION] = position
    try:
        words[:, SEED] = np.array([draw.seed for draw in draws], np.uint64).view(np.uint32).reshape(-1, 2)
    except OverflowError as error:
        raise InvalidInputError(f"a seed must be 0 or above, and below 2^64: {error}") from error
    if temperature.any():
        kinds = _pack_temperatures(words, temperature, top_k, top_p, min_p, vocab)
    else:
        kinds = np.full(len(draws), PLAIN, np.uint32)
    changes = _pack_changes(words, draws, vocab, kinds)
    if masked := [i for i, draw in enumerate(draws) if draw.allowed is not None]:
        words[masked, MASK] = np.arange(len(masked))
        kinds[masked] |= np.uint32(MASKS)
    if any(draw.logprobs is not None for draw in draws):
        asked = np.array([-1 if draw.logprobs is None else draw.logprobs for draw in draws], np.int64)
        if (bad := asked[(asked < -1) | (asked > MOST_LIKELIEST)]).size:
            raise InvalidInputError(f"a draw cannot tell {bad[0]} likeliest tokens; it must be 0 to {MOST_LIKELIEST}")
        words[:, LIKELIEST] = asked + 1
        kinds |= np.where(asked >= 0, np.uint32(LOGPROBS), np.uint32(0))
    words[:, KINDS] = kinds
    return PackedDraws(words.view(np.int32), changes, packed_masks(draws, vocab))


def _pack_temperatures(
    words: NDArray[np.uint32],
    temperature: NDArray[np.float64],
    top_k: NDArray[np.float64],
    top_p: NDArray[np.float64],
    min_p: NDArray[np.float64],
    vocab: int,
) -> NDArray[np.uint32]:
    """Fill in how tokens are drawn from logits; the kinds of the rows."""
    noisy = temperature > 0
    floats = words.view(np.float32)
    rounded = np.clip(temperature, *reference.TEMPERATURES).astype(np.float32)
    floats[:, TEMPERATURE] = np.where(noisy, rounded, 0)
    floats[:, INVERSE] = np.where(noisy, np.float32(1) / rounded, 0)
    floats[:, MARGIN] = -reference.LARGEST
    if (bounded := (min_p > 0) & noisy).any():
        shares, which = np.unique(min_p[bounded], return_inverse=True)
        logs = np.array([np.log(share) for share in shares])  # as ``margin_of`` rounds it
        floats[bounded, MARGIN] = rounded[bounded].astype(np.float64) * logs[which]
    share = np.clip(np.rint(top_p * 2**32), 1, 2**32 - 1).astype(np.uint64) * ((top_p < 1) & noisy)
    words[:, TOP_K] = np.where((top_k < vocab) & noisy, top_k, 0)
    words[:, SHARE] = share
    # Lighter tokens together weigh less than what top-p leaves out of the heaviest one's weight alone.
    left_out = (np.uint64(2**32) - share) * np.uint64(reference.WEIGHT_ONE) >> np.uint64(32)
    words[:, LEAST_WEIGHT] = left_out // np.uint64(vocab)
    cut = words[:, TOP_K] > 0
    filtered = cut | (share > 0) | bounded
    kinds = np.where(filtered, FILTERS, np.where(noisy, NOISE | PLAIN, PLAIN)) | np.where(cut, TOP_KS, 0)
    return kinds.astype(np.uint32)


def _pack_changes(
    words: NDArray[np.uint32], draws: Sequence[Draw], vocab: int, kinds: NDArray[np.uint32]
) -> NDArray[np.int32]:
    given = [draw.changes for draw in draws if draw.changes is not None and len(draw.changes.tokens)]
    if not given:
        return _no_changes()
    lengths = np.array([0 if draw.changes is None else len(draw.changes.tokens) for draw in draws])
    words[:, LAST_CHANGE] = ends = np.cumsum(lengths)
    words[:, FIRST_CHANGE] = ends - lengths
    kinds |= np.where(lengths > 0, np.uint32(CHANGES), np.uint32(0))
    count = int(ends[-1])
    table = np.zeros((_power_of_two(count), CHANGE_WORDS), np.int32)
    floats = table.view(np.float32)
    table[:count, 0] = tokens = np.concatenate([changes.tokens for changes in given])
    if not 0 <= tokens.min() <= tokens.max() < vocab:
        bad = tokens[(tokens < 0) | (tokens >= vocab)][0]
        raise InvalidInputError(f"logits of token {bad} cannot be changed: the vocabulary has {vocab}, from 0 on")
    penalty = np.concatenate([changes.penalty for changes in given])
    floats[:count, 1], floats[:count, 2] = reference.penalty_factors(penalty)
    floats[:count, 3] = np.concatenate([changes.shift for changes in given])
    return table


def packed_masks(draws: Sequence[Draw], vocab: int) -> NDArray[np.int32]:
    """The masks of those draws that have one, as ``PackedDraws`` has them. Raises InvalidInputError like ``packed``."""
    given = [draw.allowed for draw in draws if draw.allowed is not None]
    if not given:
        return _no_masks(vocab)
    width = ceil_div(vocab, 32)
    table = np.empty((_power_of_two(len(given)), width), np.uint32)
    table[len(given) :] = 0
    for row, allowed in zip(table, given, strict=False):
        if allowed.shape != (width,) or allowed.dtype != np.uint32:
            raise InvalidInputError(
                f"a mask of allowed tokens is {allowed.dtype} {list(allowed.shape)}, but {vocab} tokens need uint32 "
                f"[{width}]"
            )
        row[:] = allowed
    if not allows_some(table[: len(given)], vocab).all():
        raise InvalidInputError("a mask of allowed tokens allows none of the vocabulary, so no token can be drawn")
    return table.view(np.int32)


def allows_some(masks: NDArray[np.uint32], vocab: int) -> NDArray[np.bool_]:
    """Of masks [..., ceil(vocab / 32)] whether any bit of a token is set."""
    last = np.uint32(0xFFFFFFFF >> -vocab % 32)
    found: NDArray[np.bool_] = masks[..., :-1].any(axis=-1) | ((masks[..., -1] & last) > 0)
    return found


def _power_of_two(count: int) -> int:
    return 1 << max(count - 1, 0).bit_length()


def _no_changes() -> NDArray[np.int32]:
    return np.zeros((0, CHANGE_WORDS), np.int32)


def _no_masks(vocab: int) -> NDArray[np.int32]:
    return np.zeros((0, ceil_div(vocab, 32)), np.int32)
