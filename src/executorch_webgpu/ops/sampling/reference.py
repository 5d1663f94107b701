"""How a token is chosen from logits: the definition that kernels and the plain loop share.

A token is drawn by the Gumbel-max trick: the largest ``logit + temperature * gumbel`` wins, with noise that depends on
the seed, the position of the new token and the token's id only. So a draw needs no state, no sorting and no running
sum, every token can be scored alone, and the order of the work does not matter. Noise comes from Philox4x32-10, in
integers, and is the same everywhere; logarithms are rounded as each engine does it, so two engines can differ only
where two candidates are closer than that. Top-k, top-p and min-p say which tokens may win: they keep the first ones in
the order of falling logits and, of equal logits, of rising ids; top-p adds up integer weights, so it does not depend on
an order of summation either, and min-p bounds a difference of logits. The repetition penalty changes logits before
anything else looks at them, by one rounded product.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]  # [vocab]
BROKEN = -1  # in place of a token, where a logit is NaN or the largest is not finite
WEIGHT_ONE = 2**31  # the weight of the largest logit
TEMPERATURES = 1e-30, 1e30  # where float32 holds them and their inverses; so are penalties
LARGEST = np.finfo(np.float32).max

_WORD = np.uint64(0xFFFFFFFF)
_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = 0x9E3779B9, 0xBB67AE85


def philox(counter: tuple[NDArray[np.uint64], int, int, int], seed: int) -> NDArray[np.uint32]:
    """Philox4x32-10: words [n, 4] of counters, whose first words are an array [n], and a 64-bit key."""
    c0, c1, c2, c3 = (np.broadcast_to(np.uint64(word), counter[0].shape) for word in counter)
    keys = [seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF]
    for _ in range(10):
        a, b = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        k0, k1 = map(np.uint64, keys)
        c0, c1, c2, c3 = (b >> np.uint64(32)) ^ c1 ^ k0, b & _WORD, (a >> np.uint64(32)) ^ c3 ^ k1, a & _WORD
        keys = [(key + step) & 0xFFFFFFFF for key, step in zip(keys, _WEYL, strict=True)]
    return np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32)


def gumbel(ids: NDArray[np.intp], position: int, seed: int) -> NDArray[np.float32]:
    """Gumbel noise [n] of tokens at a position. Four tokens share a counter."""
    blocks, place = np.unique(ids // 4, return_inverse=True)
    words = philox((blocks.astype(np.uint64), position, 0, 0), seed)
    odd = words[place.reshape(-1), ids % 4] | np.uint32(1)
    fine, coarse = odd.astype(np.float32) * np.float32(2**-32), (odd >> 8).astype(np.float32) * np.float32(2**-24)
    uniform = np.where(odd < 1 << 24, fine, coarse)  # the leading 24 bits
    return -np.log(-np.log1p(-uniform))


def weights(logits: Logits, temperature: float) -> NDArray[np.uint64]:
    """exp((logit - largest) / temperature) in units of 2^-31."""
    inverse = np.float32(1) / float32_temperature(temperature)
    with np.errstate(over="ignore"):
        scaled = np.maximum((logits - logits.max()) * inverse, np.float32(-100))
    return (np.minimum(np.exp(scaled), 1) * np.float32(WEIGHT_ONE)).astype(np.uint64)


def kept(logits: Logits, temperature: float, top_k: int, top_p: float, min_p: float = 0.0) -> NDArray[np.intp]:
    """Ids of the tokens that may be drawn, the likeliest first."""
    return _kept(logits, temperature, top_k, share_of(top_p), margin_of(min_p, temperature))


def _kept(logits: Logits, temperature: float, top_k: int, share: int, margin: np.float32) -> NDArray[np.intp]:
    order = np.argsort(-logits, kind="stable")
    if top_k:
        order = order[:top_k]
    if share:
        sums = np.cumsum(weights(logits, temperature)[order])
        target = -(-int(sums[-1]) * share >> 32)
        order = order[: int(np.searchsorted(sums, np.uint64(target))) + 1]
    if margin > -LARGEST:
        with np.errstate(over="ignore"):
            order = order[logits[order] - logits.max() >= margin]
    return order


def margin_of(min_p: float, temperature: float) -> np.float32:
    """How far below the largest logit a token still has ``min_p`` of its probability; never above 0."""
    if min_p == 0:
        return -LARGEST
    return np.float32(float(float32_temperature(temperature)) * np.log(min_p))


def share_of(top_p: float) -> int:
    """``top_p`` as a 32-bit fraction; 0 where it keeps all tokens."""
    return 0 if top_p >= 1 else min(max(round(top_p * 2**32), 1), 2**32 - 1)


def float32_temperature(temperature: float) -> np.float32:
    """A temperature above 0 as kernels take it."""
    return np.float32(min(max(temperature, TEMPERATURES[0]), TEMPERATURES[1]))


def factors(repetition_penalty: float) -> tuple[np.float32, np.float32]:
    """What the logits of tokens that occurred are multiplied by: positive ones, and negative ones."""
    penalty = float32_temperature(repetition_penalty)
    return np.float32(1) / penalty, penalty


def penalized(logits: Logits, seen: NDArray[np.bool_], repetition_penalty: float) -> Logits:
    """Logits with those of the tokens in ``seen`` [vocab] divided by the penalty where positive, else multiplied.

    What is not finite stays, and what is finite stays finite.
    """
    positive, negative = factors(repetition_penalty)
    with np.errstate(over="ignore", invalid="ignore"):
        changed = np.clip(logits * np.where(logits > 0, positive, negative), -LARGEST, LARGEST)
    return np.where(seen & np.isfinite(logits), changed, logits)


def changed(
    logits: Logits, tokens: NDArray[np.integer], penalty: NDArray[np.float32], shift: NDArray[np.float32]
) -> Logits:
    """Logits with those of ``tokens`` [n], each of which comes once, divided or multiplied by a penalty, and shifted.

    ``penalty`` [n]: as ``penalized`` has it. ``shift`` [n] is added then. What is finite stays finite, too.
    """
    result = logits.copy()
    positive, negative = penalty_factors(penalty)
    before = logits[tokens]
    with np.errstate(over="ignore", invalid="ignore"):
        after = np.clip(before * np.where(before > 0, positive, negative), -LARGEST, LARGEST)
        after = np.clip(after + shift, -LARGEST, LARGEST)
    result[tokens] = np.where(np.isfinite(before), after, before)
    return result


def penalty_factors(penalty: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """``factors`` of many penalties."""
    negative = np.clip(penalty, np.float32(TEMPERATURES[0]), np.float32(TEMPERATURES[1]))
    return np.float32(1) / negative, negative


def masked(logits: Logits, allowed: NDArray[np.uint32]) -> Logits:
    """Logits with those of tokens that are not ``allowed``, a set as ``bits_of`` packs it, negative infinity."""
    return np.where(from_bits(allowed.view(np.int32), logits.size), logits, np.float32(-np.inf))


def log_probabilities(logits: Logits) -> NDArray[np.float64]:
    """The log-softmax [vocab] in float64; NaN where the largest logit is no finite number."""
    exact = logits.astype(np.float64)
    if not np.isfinite(exact.max()):
        return np.full(exact.shape, np.nan)
    exact -= exact.max()
    with np.errstate(under="ignore"):
        return exact - np.log(np.exp(exact).sum())


def bits_of(seen: NDArray[np.bool_]) -> NDArray[np.int32]:
    """A set of tokens [vocab] as the device keeps it: token ``i`` is bit ``i % 32`` of word ``i / 32``."""
    bits = np.zeros(-(-seen.size // 32) * 32, np.bool_)
    bits[: seen.size] = seen
    return np.packbits(bits, bitorder="little").view("<i4").astype(np.int32)


def from_bits(words: NDArray[np.int32], vocab: int) -> NDArray[np.bool_]:
    """The set [vocab] that ``bits_of`` packed."""
    return np.unpackbits(words.astype("<i4").view(np.uint8), count=vocab, bitorder="little").astype(np.bool_)


def choose(
    logits: Logits, position: int, seed: int, temperature: float, top_k: int, top_p: float, min_p: float = 0.0
) -> int:
    """The token at ``position``, or BROKEN. ``temperature`` 0 takes the first of the largest logits."""
    margin = margin_of(min_p, temperature)
    return choose_within(logits, position, seed, temperature, top_k, share_of(top_p), margin)


def choose_within(
    logits: Logits, position: int, seed: int, temperature: float, top_k: int, share: int, margin: np.float32
) -> int:
    """``choose`` with top-p as ``share_of`` has it, and min-p as ``margin_of`` has it."""
    largest = logits.max()
    if not np.isfinite(largest):  # NaN is the largest of all
        return BROKEN
    if temperature == 0:
        return int(logits.argmax())
    everything = not top_k and not share and margin == -LARGEST
    ids = np.arange(logits.size) if everything else np.sort(_kept(logits, temperature, top_k, share, margin))
    with np.errstate(over="ignore"):
        scores = logits[ids] + float32_temperature(temperature) * gumbel(ids, position, seed)
    return int(ids[scores.argmax()])
