"""Differences of paired rounds: what they are told apart by."""

from __future__ import annotations

import numpy as np

from bench.http_paths import spread


def test_interval_has_the_median_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    inside = 0
    for _ in range(1000):
        low, high = spread(random.exponential(size=60).tolist()).interval
        inside += low <= np.log(2) <= high
    assert 945 <= inside <= 990  # 95 % at least, and not much more


def test_spread_of_few_values_is_all_of_them() -> None:
    found = spread([3.0, 1.0, 2.0])
    assert found.median == 2 and found.interval == (1, 3)


def test_spread_shows_a_shift_that_is_smaller_than_the_noise() -> None:
    random = np.random.default_rng(1)
    machine = random.normal(1, 0.3, 400)  # both paths of a round meet the same
    least, most = spread((machine * 0.02 + random.normal(0, 0.02, 400)).tolist()).interval
    assert 0 < least < 0.02 < most
