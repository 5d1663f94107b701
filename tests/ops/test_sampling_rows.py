"""Many rows, each with a way of its own to draw: kernels against the definition, and rows against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from executorch_webgpu.errors import InvalidInputError
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.ops.sampling import draws as words
from executorch_webgpu.ops.sampling import reference
from executorch_webgpu.ops.sampling.draws import MOST_LIKELIEST, Draw, LogitChanges, packed
from tests.ops.harness import In, OpProgram, Out
from tests.ops.test_sampling import DEVIATIONS, chi_square, normal

ROWS = "et_webgpu.sample_rows.default"


def program_of(device: Device, vocab: int, rows: int, changes: int = 4096, **options: object) -> OpProgram:
    """Logits, draws, changes and masks as inputs, of up to so many rows."""
    args = [In((rows, vocab)), In((rows, words.DRAW_WORDS), "int32"), In((changes, words.CHANGE_WORDS), "int32")]
    masks = In((1 << (rows - 1).bit_length(), -(-vocab // 32)), "int32")
    out = [Out((rows,), "int32"), Out((rows, 1 + MOST_LIKELIEST)), Out((rows, MOST_LIKELIEST), "int32")]
    return OpProgram(device, ROWS, [*args, masks], out, **options)


def inputs(logits: np.ndarray, draws: Sequence[Draw]) -> list[np.ndarray]:
    made = packed(draws, logits.shape[1])
    return [logits, made.rows, made.changes, made.masks]


def expected(logits: np.ndarray, draw: Draw) -> int:
    """What the host draws of one row, by the functions of the definition."""
    if draw.changes is not None:
        logits = reference.changed(logits, draw.changes.tokens, draw.changes.penalty, draw.changes.shift)
    if draw.allowed is not None:
        logits = reference.masked(logits, draw.allowed)
    filters = draw.top_k, draw.top_p, draw.min_p
    return reference.choose(logits, draw.position, draw.seed, draw.temperature, *filters)


def check(program: OpProgram, logits: np.ndarray, draws: Sequence[Draw]) -> list[int]:
    """Run, and compare with the definition: tokens exactly, log probabilities of the rows that ask for some."""
    given = inputs(logits, draws)
    program.poison()
    tokens, logprobs, likeliest = program.run(given)
    assert tokens.tolist() == [expected(row, draw) for row, draw in zip(logits, draws, strict=True)]
    again, exact, order = program.reference(given)
    np.testing.assert_array_equal(tokens, again)
    asked = [i for i, draw in enumerate(draws) if draw.logprobs is not None]
    np.testing.assert_allclose(logprobs[asked], exact[asked], rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(likeliest[asked], order[asked])
    return [int(token) for token in tokens]


def random_changes(random: np.random.Generator, vocab: int) -> LogitChanges:
    tokens = random.permutation(vocab)[: int(random.integers(0, min(vocab, 60) + 1))].astype(np.int32)
    penalty = random.choice([1.0, 0.5, 1.3, 1e30], tokens.size).astype(np.float32)
    shift = random.choice([0.0, -3.5, 100.0, -0.25], tokens.size).astype(np.float32)
    return LogitChanges(tokens, penalty, shift)


def random_mask(random: np.random.Generator, vocab: int) -> np.ndarray:
    allowed = random.random(vocab) < random.choice([0.02, 0.5, 0.98])
    allowed[random.integers(vocab)] = True
    return reference.bits_of(allowed).view(np.uint32)


def random_draw(random: np.random.Generator, vocab: int) -> Draw:
    """Any settings; each is off in half of the rows."""

    def sometimes(value: object, otherwise: object) -> object:
        return value if random.random() < 0.5 else otherwise

    return Draw(
        position=int(random.integers(0, 2**31)),
        seed=int(random.integers(0, 2**64, dtype=np.uint64)),
        temperature=sometimes(float(random.choice([1e-9, 0.3, 1.0, 7.0, 1e9])), 0.0),  # type: ignore[arg-type]
        top_k=sometimes(int(random.integers(0, vocab + 3)), 0),  # type: ignore[arg-type]
        top_p=sometimes(float(random.choice([1e-9, 0.05, 0.5, 0.95])), 1.0),  # type: ignore[arg-type]
        min_p=sometimes(float(random.choice([1e-30, 0.03, 0.4, 1.0])), 0.0),  # type: ignore[arg-type]
        changes=sometimes(random_changes(random, vocab), None),  # type: ignore[arg-type]
        allowed=sometimes(random_mask(random, vocab), None),  # type: ignore[arg-type]
        logprobs=sometimes(int(random.integers(0, MOST_LIKELIEST + 1)), None),  # type: ignore[arg-type]
    )


def random_logits(random: np.random.Generator, rows: int, vocab: int) -> np.ndarray:
    logits = (random.normal(size=(rows, vocab)) * random.choice([0.5, 4.0], (rows, 1))).astype(np.float32)
    tied = random.random(rows) < 0.3
    logits[tied] = np.round(logits[tied])
    logits[random.random(logits.shape) < 0.02] = -np.inf
    return logits


@pytest.mark.parametrize(
    ("vocab", "most"), [(1, 3), (2, 9), (31, 5), (32, 7), (33, 64), (257, 13), (1031, 67), (70_001, 5)]
)
def test_every_row_is_drawn_in_its_own_way(device: Device, vocab: int, most: int) -> None:
    random = np.random.default_rng(vocab)
    with program_of(device, vocab, most) as program:
        for rows in (most, 1, most // 2 + 1, most):
            check(program, random_logits(random, rows, vocab), [random_draw(random, vocab) for _ in range(rows)])


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), vocab=st.integers(1, 700), rows=st.integers(1, 9))
def test_any_rows(device: Device, seed: int, vocab: int, rows: int) -> None:
    random = np.random.default_rng(seed)
    logits = random_logits(random, rows, vocab)
    for row in np.flatnonzero(random.random(rows) < 0.2):
        logits[row, random.integers(vocab)] = random.choice([np.nan, np.inf, 3e38])
    with program_of(device, vocab, rows) as program:
        check(program, logits, [random_draw(random, vocab) for _ in range(rows)])


def test_a_row_does_not_depend_on_the_others(device: Device) -> None:
    """Tokens and log probabilities of rows together are, bit for bit, those of each alone."""
    random, vocab, rows = np.random.default_rng(1), 5003, 23
    logits = random_logits(random, rows, vocab)
    draws = [replace(random_draw(random, vocab), logprobs=5) for _ in range(rows)]
    with program_of(device, vocab, rows) as program:
        together = program.run(inputs(logits, draws))
        for row in range(rows):
            alone = program.run(inputs(logits[row : row + 1], draws[row : row + 1]))
            for all_of_them, its_own in zip(together, alone, strict=True):
                assert all_of_them[row].tobytes() == its_own[0].tobytes()


def test_rows_that_do_not_fit_the_scratch_memory_together(device: Device) -> None:
    """Five rows at a time, with lists of candidates, and parts of maxima and of weights."""
    random, vocab, rows = np.random.default_rng(2), 2003, 13
    with program_of(device, vocab, rows, scratch_bytes=70_000) as program:
        draws = [replace(random_draw(random, vocab), temperature=0.8, logprobs=3) for _ in range(rows)]
        check(program, random_logits(random, rows, vocab), draws)
        bound = [d.kernel for plan in program.executor.plans.plans for d in plan.dispatches]
        assert bound.count("sampling/sample_candidates") == 3


def kernels(program: OpProgram) -> list[str]:
    return [d.kernel.removeprefix("sampling/") for plan in program.executor.plans.plans for d in plan.dispatches]


def test_rows_cost_the_kernels_that_some_of_them_need(device: Device) -> None:
    greedy = Draw(3)
    with program_of(device, 67, 4) as program:
        for other, wanted in (
            (greedy, ["partial_argmax", "argmax"]),
            (Draw(1, temperature=1.0), ["partial_argmax", "argmax"]),
            (Draw(1, temperature=0.0, top_k=5), ["partial_argmax", "argmax"]),
            (
                Draw(1, temperature=1.0, top_p=0.5),
                ["partial_argmax", "argmax", "partial_max", "candidates", "sample_candidates"],
            ),
            (Draw(1, logprobs=0), ["likeliest_tokens", "partial_argmax", "argmax", "logprobs"]),
        ):
            check(program, normal(1, 2, 67), [greedy, other])
            assert kernels(program) == wanted
        (plan,) = program.executor.plans.plans
        replay = program.executor.state.replay
        for step in range(5):
            check(
                program, normal(step, 2, 67), [replace(greedy, position=step), replace(greedy, logprobs=step, seed=9)]
            )
            assert program.executor.plans.plans[0] is plan, "nothing is planned anew for other values"
            assert program.executor.state.replay is replay, "or recorded"


@pytest.mark.parametrize("vocab", [31, 32, 33, 64, 97])
def test_masks_at_the_edges_of_their_words(device: Device, vocab: int) -> None:
    """Each token alone, and all but one; bits past the vocabulary mean nothing."""
    logits = normal(vocab, vocab, vocab)
    with program_of(device, vocab, vocab) as program:
        for temperature in (0.0, 5.0):
            for alone in (True, False):
                allowed = np.eye(vocab, dtype=bool) if alone else ~np.eye(vocab, dtype=bool)
                masks = [reference.bits_of(row).view(np.uint32) for row in allowed]
                if vocab % 32:
                    for mask in masks:
                        mask[-1] |= np.uint32(1 << 31)
                draws = [Draw(i, 5, temperature, allowed=mask) for i, mask in enumerate(masks)]
                drawn = check(program, logits, draws)
                assert all(allowed[i, token] for i, token in enumerate(drawn))


def test_only_rows_that_are_no_numbers_are_broken(device: Device) -> None:
    """Also where a mask takes away all that is finite, but not where it takes away the rest."""
    vocab = 300
    logits = np.tile(normal(4, 1, vocab), (8, 1))
    logits[1, 7], logits[3, 7], logits[5] = np.nan, np.inf, -np.inf
    logits[6, 7], logits[7, 9] = np.nan, -np.inf
    without, only = np.ones(vocab, bool), np.zeros(vocab, bool)
    without[7], only[9] = False, True
    allowed = {6: without, 7: only}
    for how in ({}, {"temperature": 1.0}, {"temperature": 1.0, "top_k": 5}, {"temperature": 2.0, "min_p": 0.1}):
        draws = [Draw(i, 11, **how, logprobs=2) for i in range(8)]  # type: ignore[arg-type]
        for row, mask in allowed.items():
            draws[row] = replace(draws[row], allowed=reference.bits_of(mask).view(np.uint32))
        with program_of(device, vocab, 8) as program:
            drawn = check(program, logits, draws)
        assert [token == reference.BROKEN for token in drawn] == [i in (1, 3, 5, 7) for i in range(8)]


def test_log_probabilities_are_of_the_logits_before_any_change(device: Device) -> None:
    vocab = 1031
    logits = normal(6, 3, vocab)
    exact = logits.astype(np.float64) - np.log(np.exp(logits.astype(np.float64)).sum(axis=1, keepdims=True))
    token = int(logits[1].argmin())
    changes = LogitChanges(np.array([3, token], np.int32), np.full(2, 1.5, np.float32), np.array([0, 100], np.float32))
    mask = np.zeros(vocab, bool)
    mask[[5, 700]] = True
    allowed = reference.bits_of(mask).view(np.uint32)
    draws = [Draw(0, logprobs=20), Draw(0, changes=changes, logprobs=7), Draw(0, allowed=allowed, logprobs=0)]
    with program_of(device, vocab, 3) as program:
        drawn = check(program, logits, draws)
        _, logprobs, likeliest = program.run(inputs(logits, draws))
    assert drawn[1] == token and drawn[2] in (5, 700)
    np.testing.assert_allclose(logprobs[:, 0], exact[range(3), drawn], atol=1e-4)
    for row, k in enumerate((20, 7, 0)):
        assert likeliest[row, :k].tolist() == np.argsort(-logits[row], kind="stable")[:k].tolist()
        np.testing.assert_allclose(logprobs[row, 1 : 1 + k], np.sort(exact[row])[::-1][:k], atol=1e-4)


def test_equal_logits_are_told_in_the_order_of_their_ids(device: Device) -> None:
    """Ties within and across the chunks of two workgroups."""
    logits = np.zeros((2, 4099), np.float32)
    logits[1, [4098, 2047, 2048]] = 1
    with program_of(device, 4099, 2) as program:
        check(program, logits, [Draw(0, logprobs=20), Draw(0, logprobs=5)])
        _, _, likeliest = program.run(inputs(logits, [Draw(0, logprobs=20), Draw(0, logprobs=5)]))
    assert likeliest[0].tolist() == list(range(20))
    assert likeliest[1, :5].tolist() == [2047, 2048, 4098, 0, 1]


def test_draws_of_many_rows_follow_the_softmax_of_changed_logits(device: Device) -> None:
    vocab, rows, steps = 11, 50, 40
    logits = normal(8, 1, vocab, scale=1.0)
    changes = LogitChanges(
        np.array([2, 9], np.int32), np.array([1.4, 1], np.float32), np.array([0.5, -0.7], np.float32)
    )
    changed = reference.changed(logits[0], changes.tokens, changes.penalty, changes.shift)
    weights = np.exp(changed.astype(np.float64) / 0.8)
    counts = np.zeros(vocab)
    with program_of(device, vocab, rows) as program:
        for step in range(steps):
            draws = [Draw(step, seed, 0.8, changes=changes) for seed in range(rows)]
            tokens, _, _ = program.run(inputs(np.tile(logits, (rows, 1)), draws))
            counts += np.bincount(tokens, minlength=vocab)
    assert chi_square(counts, weights / weights.sum()) < vocab - 1 + DEVIATIONS * (2 * (vocab - 1)) ** 0.5


def changes_of(*tokens: int) -> LogitChanges:
    ones = np.ones(len(tokens), np.float32)
    return LogitChanges(np.array(tokens, np.int32), ones, ones)


@pytest.mark.parametrize(
    ("draw", "named"),
    [
        (Draw(-1), "position -1"),
        (Draw(2**31), "position 2147483648"),
        (Draw(0, temperature=float("nan")), "temperature nan"),
        (Draw(0, top_k=-1), "top_k -1"),
        (Draw(0, top_p=0.0), "top_p 0.0"),
        (Draw(0, min_p=1.5), "min_p 1.5"),
        (Draw(0, logprobs=21), "21 likeliest tokens"),
        (Draw(0, seed=-1), "a seed must be 0 or above"),
        (Draw(0, seed=2**64), "below 2.64"),
        (Draw(0, changes=changes_of(3, 67)), "logits of token 67 cannot be changed"),
        (Draw(0, changes=changes_of(-1)), "logits of token -1 cannot be changed"),
        (Draw(0, allowed=np.zeros(3, np.uint32)), "allows none"),
        (Draw(0, allowed=np.array([0, 0, 8], np.uint32)), "allows none"),
        (Draw(0, allowed=np.ones(2, np.uint32)), r"67 tokens need uint32 \[3\]"),
        (Draw(0, allowed=np.ones(3, np.int32)), "is int32"),
    ],
)
def test_draws_out_of_range(draw: Draw, named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        packed([Draw(0), draw], 67)


def test_seeds_are_those_of_64_bits() -> None:
    made = packed([Draw(0, 2**64 - 1), Draw(0, 1 << 32)], 5).rows.view(np.uint32)
    assert made[:, words.SEED].tolist() == [[2**32 - 1] * 2, [0, 1]]


# -- tokens that the step before drew -------------------------------------------------------------------------------


def test_fed_tokens(device: Device) -> None:
    """What is not drawn, -1, reads no memory outside."""
    args = [In((1, 70), "int32"), In((7,), "int32"), 100]
    drawn = np.array([5, 99, -1, 0, 2**31 - 1, 7, 42], np.int32)
    random = np.random.default_rng(0)
    with OpProgram(device, "et_webgpu.feed_tokens.default", args, Out((1, 70), "int32")) as program:
        for rows in (70, 1, 67):
            program.check([random.integers(-7, 100, (1, rows)).astype(np.int32), drawn])
        assert program.run([np.array([[-1, -2, -3, 3, -5]], np.int32), drawn]).tolist() == [[5, 99, 0, 3, 99]]
        with pytest.raises(InvalidInputError, match="token 100 is not in the vocabulary of 100"):
            program.run([np.array([[3, 100]], np.int32), drawn])
        with pytest.raises(InvalidInputError, match="stands for drawn token 7 of 7"):
            program.run([np.array([[3, -8]], np.int32), drawn])
