"""The next token: kernels against the definition, and the definition against mathematics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from transformers.generation import logits_process

from executorch_webgpu.errors import InvalidInputError
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.ops.sampling import reference
from executorch_webgpu.ops.sampling.single import signed_halves
from tests.ops.harness import In, Mutable, OpProgram, Out, Sym

SAMPLE = "et_webgpu.sample_token.default"
SEED = 0x123456789ABCDEF


def sampler(
    device: Device,
    vocab: int,
    temperature: float,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    *,
    rows: int = 1,
    seed: int = SEED,
    penalty: float = 1.0,
    seen: np.ndarray | None = None,  # bool [vocab], with a penalty
) -> OpProgram:
    kept = None if seen is None else Mutable(reference.bits_of(seen))
    args = [In((rows, vocab)), Sym(), Sym(), *signed_halves(seed), temperature, top_k, top_p, min_p, penalty, kept]
    return OpProgram(device, SAMPLE, args, Out((1,), "int32"))


def normal(seed: int, *dims: int, scale: float = 3.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=dims) * scale).astype(np.float32)


# -- the definition -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((2**32 - 1,) * 4, 2**64 - 1, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            0x299F31D0A4093822,
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_published_numbers(counter: tuple[int, int, int, int], key: int, words: str) -> None:
    first, *others = counter
    (got,) = reference.philox((np.array([first], np.uint64), *others), key)  # type: ignore[arg-type]
    assert " ".join(f"{word:08x}" for word in got) == words


def test_gumbel_noise_has_its_distribution() -> None:
    """Kolmogorov-Smirnov: the largest distance from exp(-exp(-x)) over 200,000 draws, at a level of 1e-6."""
    noise = np.sort(reference.gumbel(np.arange(200_000), 5, SEED).astype(np.float64))
    expected = np.exp(-np.exp(-noise))
    steps = np.arange(noise.size + 1) / noise.size
    assert max((expected - steps[:-1]).max(), (steps[1:] - expected).max()) < 2.7 / noise.size**0.5


def test_noise_of_tokens_positions_and_seeds_is_unrelated() -> None:
    ids = np.arange(4096)
    series = [reference.gumbel(ids, position, seed) for position in (0, 1, 2) for seed in (0, 1, 2**32, 2**63)]
    correlations = np.corrcoef([*series, np.roll(series[0], 1), np.roll(series[0], 4)])
    assert np.abs(correlations - np.eye(len(correlations))).max() < 5 / ids.size**0.5


def test_noise_of_some_tokens_is_that_of_all() -> None:
    everything = reference.gumbel(np.arange(1000), 9, 1)
    ids = np.array([0, 3, 4, 999, 17, 5])
    np.testing.assert_array_equal(reference.gumbel(ids, 9, 1), everything[ids])


def chi_square(counts: np.ndarray, probabilities: np.ndarray) -> float:
    expected = probabilities * counts.sum()
    return float(((counts - expected) ** 2 / expected).sum())


# Quantiles of chi-square at 1 - 1e-6 are below its mean, the degrees of freedom, by this many standard deviations.
DEVIATIONS = 6.5


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1.0, 0, 1.0), (0.5, 0, 1.0), (2.0, 5, 1.0), (1.0, 0, 0.7)]
)
def test_draws_follow_the_softmax_of_what_is_kept(temperature: float, top_k: int, top_p: float) -> None:
    logits = normal(3, 13, scale=1.0)
    kept = np.sort(reference.kept(logits, temperature, top_k, top_p))
    drawn = [reference.choose(logits, position, SEED, temperature, top_k, top_p) for position in range(6000)]
    counts = np.bincount(drawn, minlength=13)
    assert counts[kept].sum() == 6000
    weights = np.exp(logits[kept].astype(np.float64) / temperature)
    freedom = kept.size - 1
    assert chi_square(counts[kept], weights / weights.sum()) < freedom + DEVIATIONS * (2 * freedom) ** 0.5


@pytest.mark.parametrize(
    ("top_k", "kept"), [(1, [0]), (2, [0, 1]), (3, [0, 1, 3]), (0, [0, 1, 3, 2]), (4, [0, 1, 3, 2]), (9, [0, 1, 3, 2])]
)
def test_top_k_with_ties_keeps_lower_ids(top_k: int, kept: list[int]) -> None:
    assert reference.kept(np.array([5, 5, 1, 5], np.float32), 1.0, top_k, 1.0).tolist() == kept


@pytest.mark.parametrize(("top_p", "kept"), [(1e-12, 1), (0.25, 1), (0.2500001, 2), (0.5, 2), (0.75, 3), (0.76, 4)])
def test_top_p_keeps_the_fewest_that_reach_it(top_p: float, kept: int) -> None:
    """Four equal logits are a quarter each, exactly."""
    logits = np.full(4, 1.5, np.float32)
    assert reference.kept(logits, 0.3, 0, top_p).tolist() == list(range(kept))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("min_p", [0.01, 0.2, 0.5, 0.999, 1.0])
def test_min_p_keeps_shares_of_the_likeliest(temperature: float, min_p: float) -> None:
    logits = normal(11, 41, scale=1.0)
    logits[[5, 30]] = logits.max()
    shares = np.exp((logits.astype(np.float64) - logits.max()) / temperature)
    assert np.abs(shares / min_p - 1)[shares < 1].min() > 1e-5, "no share is close to the bound"
    kept = reference.kept(logits, temperature, 0, 1.0, min_p)
    assert set(kept.tolist()) == set(np.flatnonzero(shares >= min_p))
    assert {5, 30} <= set(kept.tolist())


def test_filters_keep_what_those_of_transformers_keep() -> None:
    """In transformers' order; also the penalty before them, and with probabilities rescaled in between."""
    random = np.random.default_rng(5)
    for _ in range(60):
        vocab = int(random.integers(2, 60))
        logits = (random.normal(size=vocab) * 3).astype(np.float32)
        text = random.integers(0, vocab, int(random.integers(1, 20)))
        penalty, temperature = random.uniform(0.5, 2), random.uniform(0.3, 2)
        top_k, top_p, min_p = int(random.integers(1, vocab + 1)), random.uniform(0.3, 1), random.uniform(0, 0.3)
        scores = torch.from_numpy(logits[np.newaxis])
        for process in (
            logits_process.RepetitionPenaltyLogitsProcessor(penalty),
            logits_process.TemperatureLogitsWarper(temperature),
            logits_process.TopKLogitsWarper(top_k),
            logits_process.TopPLogitsWarper(top_p),
            logits_process.MinPLogitsWarper(min_p),
        ):
            scores = process(torch.from_numpy(text[np.newaxis]), scores)
        seen = np.zeros(vocab, np.bool_)
        seen[text] = True
        ours = reference.penalized(logits, seen, penalty)
        np.testing.assert_allclose(ours, logits * np.where(seen, np.where(logits > 0, 1 / penalty, penalty), 1), 1e-6)
        kept = reference.kept(ours, temperature, top_k, top_p, min_p)
        assert set(kept.tolist()) == set(np.flatnonzero(np.isfinite(scores[0].numpy())))


@given(st.integers(1, 200), st.integers(0, 2**32 - 1))
def test_sets_of_tokens_are_bits(vocab: int, seed: int) -> None:
    seen = np.random.default_rng(seed).random(vocab) < 0.5
    words = reference.bits_of(seen)
    assert words.shape == (-(-vocab // 32),) and words.dtype == np.int32
    np.testing.assert_array_equal(reference.from_bits(words, vocab), seen)
    for token in range(vocab):
        assert (int(words[token // 32]) >> token % 32) & 1 == seen[token]


# -- kernels against it -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vocab", [1, 3, 4, 257, 1031, 70_001])
@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "min_p"),
    [
        (0.0, 0, 1.0, 0.5),
        (1.0, 0, 1.0, 0.0),
        (0.7, 0, 0.9, 0.0),
        (0.8, 7, 1.0, 0.0),
        (1.3, 50, 0.6, 0.0),
        (3.0, 0, 0.999, 0.0),
        (0.2, 1, 1.0, 0.0),
        (1.0, 0, 1.0, 0.05),
        (2.0, 0, 1.0, 1e-9),
        (2.5, 40, 0.95, 0.2),
    ],
)
@pytest.mark.parametrize("penalty", [1.0, 1.7])
def test_tokens_are_those_of_the_definition(
    device: Device, vocab: int, temperature: float, top_k: int, top_p: float, min_p: float, penalty: float
) -> None:
    seen = None if penalty == 1 else np.random.default_rng(vocab).random(vocab) < 0.4
    with sampler(device, vocab, temperature, top_k, top_p, min_p, penalty=penalty, seen=seen) as program:
        for position in (0, 1, 2, 3, 1000, 2**31 - 1):
            program.check([normal(position % 97, 1, vocab), 0, position])
        if seen is not None:
            np.testing.assert_array_equal(program.mutable(), program._reference_state[0])


def test_the_row_is_live(device: Device) -> None:
    logits = normal(0, 5, 1031)
    with sampler(device, 1031, 0.7, top_p=0.9, rows=5) as program:
        for rows, row in ((5, 4), (5, 0), (3, 2), (1, 0), (5, 3)):
            program.check([logits[:rows], row, 11])
        for row in (-1, 3):
            with pytest.raises(InvalidInputError, match="the row is"):
                program.run([logits[:3], row, 11])
        with pytest.raises(InvalidInputError, match="the position is -1"):
            program.run([logits[:3], 0, -1])


def gpu_support(device: Device, logits: np.ndarray, top_k: int, top_p: float, draws: int) -> set[int]:
    """What is drawn at a temperature that makes all tokens that may be drawn about equally likely."""
    with sampler(device, logits.size, 1.0, top_k, top_p) as program:
        return {int(program.run([logits[np.newaxis], 0, position])[0]) for position in range(draws)}


@pytest.mark.parametrize("top_k", [1, 2, 5, 6, 7, 12, 300])
def test_top_k_on_the_device_keeps_exactly_the_first(device: Device, top_k: int) -> None:
    """Differences of one in the last place, ties, and both signs."""
    random = np.random.default_rng(top_k)
    base = np.float32(0.25)
    steps = [base, np.nextafter(base, np.float32(1)), np.nextafter(base, np.float32(0)), np.float32(-0.25)]
    logits = random.choice(np.array(steps, np.float32), 301)
    kept = set(reference.kept(logits, 1.0, top_k, 1.0).tolist())
    assert len(kept) == top_k
    support = gpu_support(device, logits, top_k, 1.0, min(400, 40 * top_k))
    assert support <= kept
    if top_k <= 7:
        assert support == kept


@pytest.mark.parametrize("top_p", [1e-9, 0.1, 0.125, 0.5, 0.51, 0.875, 0.9])
def test_top_p_on_the_device_keeps_exactly_the_fewest(device: Device, top_p: float) -> None:
    """Eight equal logits among others that weigh nothing: shares are exact, and lower ids come first."""
    logits = np.full(61, -1e4, np.float32)
    equal = np.arange(3, 59, 7)
    logits[equal] = 2.5
    count = max(1, int(np.ceil(top_p * 8)))
    assert gpu_support(device, logits, 0, top_p, 40 * count) == set(equal[:count].tolist())


@pytest.mark.parametrize("top_k", [2, 3, 7])
def test_top_p_of_all_that_top_k_keeps_keeps_no_more(device: Device, top_k: int) -> None:
    """The last one that is kept has neighbours in its bins that are not."""
    logits = np.full(300, -5, np.float32)
    logits[100:116] = 2 - np.arange(16, dtype=np.float32) * np.float32(2**-9)
    assert gpu_support(device, logits, top_k, 0.999999, 40 * top_k) == set(range(100, 100 + top_k))


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    logits=st.one_of(
        npst.arrays(np.float32, st.integers(1, 70), elements=st.floats(-40, 40, width=16)),
        npst.arrays(np.float32, st.integers(250, 600), elements=st.floats(1, 2, width=32), fill=st.nothing()),
    ),
    temperature=st.sampled_from([0.0, 1e-9, 0.3, 1.0, 7.0, 1e9]),
    top_k=st.integers(0, 72),
    top_p=st.sampled_from([1e-9, 0.05, 0.3, 0.61, 0.95, 1.0]),
    min_p=st.sampled_from([0.0, 0.0, 1e-30, 0.03, 0.4, 1.0]),
    penalty=st.sampled_from([1.0, 1.0, 0.25, 1.1, 40.0]),
    position=st.integers(0, 2**31 - 1),
    seed=st.integers(0, 2**64 - 1),
)
def test_any_logits_and_settings(
    device: Device,
    logits: np.ndarray,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    penalty: float,
    position: int,
    seed: int,
) -> None:
    seen = None if penalty == 1 else np.random.default_rng(seed).random(logits.size) < 0.5
    made = sampler(device, logits.size, temperature, top_k, top_p, min_p, seed=seed, penalty=penalty, seen=seen)
    with made as program:
        for later in range(1 if seen is None else 3):
            program.check([logits[np.newaxis], 0, max(position - later, 0)])


@pytest.mark.parametrize(("top_k", "top_p", "min_p"), [(0, 1.0, 0.0), (3, 1.0, 0.0), (0, 0.8, 0.0), (0, 1.0, 0.2)])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("penalty", [1.0, 2.0])
@pytest.mark.parametrize(
    "bad",
    [[0, np.nan, 1], [0, -np.nan, 1], [-np.inf] * 3, [0, np.inf, 1], [np.nan] * 3, [-np.inf, np.nan, 0]],
    ids=str,
)
def test_broken_logits(
    device: Device, bad: list[float], penalty: float, temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    logits = np.zeros((1, 700), np.float32)
    logits[0, [0, 300, 699]] = bad
    if not np.isnan(bad).any() and max(bad) < 0:
        logits[:] = -np.inf
    seen = None if penalty == 1 else np.arange(700) % 2 == 0
    with sampler(device, 700, temperature, top_k, top_p, min_p, penalty=penalty, seen=seen) as program:
        assert program.run([logits, 0, 0]) == program.reference([logits, 0, 0]) == reference.BROKEN
        if seen is not None:
            np.testing.assert_array_equal(reference.from_bits(program.mutable(), 700), seen)


@pytest.mark.parametrize("min_p", [0.125, 0.2, 0.25, 0.9, 1.0])
def test_min_p_on_the_device_keeps_exactly_what_it_says(device: Device, min_p: float) -> None:
    """Probabilities of 1, 1/2, 1/4, 1/8 and 1/16 of the largest, twice each, but for one in the last place above."""
    logits = np.full(523, -1e4, np.float32)
    steps = np.log(np.float32(2)) * np.arange(5, dtype=np.float32)
    logits[100:110] = np.float32(8) - np.repeat(steps, 2)
    kept = set(reference.kept(logits, 1.0, 0, 1.0, min_p).tolist())
    with sampler(device, logits.size, 1.0, min_p=min_p) as program:
        drawn = {int(program.run([logits[np.newaxis], 0, position])[0]) for position in range(300)}
    assert drawn == kept


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_drawn_token_is_marked_and_penalized_from_then_on(device: Device, temperature: float) -> None:
    """A penalty that no logit survives: every token comes once before one comes again."""
    seen = np.zeros(67, np.bool_)
    seen[[3, 31, 32, 66]] = True
    logits = np.linspace(1, 2, 67, dtype=np.float32)[np.newaxis]
    with sampler(device, 67, temperature, penalty=1e30, seen=seen) as program:
        drawn = [int(program.check([logits * 100, 0, position])[0]) for position in range(63)]
        assert sorted(drawn) == [i for i in range(67) if i not in (3, 31, 32, 66)]
        assert reference.from_bits(program.mutable(), 67).all()


@pytest.mark.parametrize("penalty", [1e-38, 0.5, 3e38])
def test_penalties_keep_what_is_finite_finite(device: Device, penalty: float) -> None:
    logits = np.array([[3e38, -3e38, 0, -0.0, -np.inf, 1, -1]], np.float32)
    seen = np.array([1, 1, 1, 1, 1, 0, 0], np.bool_)
    with sampler(device, 7, 0.0, penalty=penalty, seen=seen) as program:
        program.check([logits, 0, 0])


@pytest.mark.parametrize(("top_k", "top_p", "min_p"), [(0, 1.0, 0.0), (40, 1.0, 0.0), (0, 0.99, 0.0), (0, 1.0, 1e-300)])
def test_masked_tokens_are_never_drawn(device: Device, top_k: int, top_p: float, min_p: float) -> None:
    logits = np.full((1, 50), -np.inf, np.float32)
    logits[0, [7, 31]] = 0
    with sampler(device, 50, 5.0, top_k, top_p, min_p) as program:
        assert {int(program.run([logits, 0, position])[0]) for position in range(40)} == {7, 31}


def test_large_logits_and_tiny_temperatures_do_not_overflow(device: Device) -> None:
    logits = np.array([[3e38, -3e38, 2.9e38]], np.float32)
    for top_p in (1.0, 0.9):
        with sampler(device, 3, 1e-6, top_p=top_p) as program:
            assert [int(program.check([logits, 0, position])[0]) for position in range(5)] == [0] * 5


def test_draws_of_the_device_follow_the_softmax(device: Device) -> None:
    logits = normal(8, 1, 11, scale=1.0)
    weights = np.exp(logits[0].astype(np.float64) / 0.8)
    with sampler(device, 11, 0.8) as program:
        drawn = [int(program.run([logits, 0, position])[0]) for position in range(1500)]
    counts = np.bincount(drawn, minlength=11)
    assert chi_square(counts, weights / weights.sum()) < 10 + DEVIATIONS * 20**0.5
