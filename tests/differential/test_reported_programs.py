"""Programs of other people's bug reports, kept as files: each is right, or refused in a sentence that says why.

``tests/data/programs/`` holds them as the stock exporter of executorch 1.5.1 wrote them, with inputs and torch's
answers; ``tests.differential.programs_saved`` says in which form.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.differential.programs_saved import read_saved, replay

FOLDER = Path(__file__).parents[1] / "data" / "programs"

# Operators that are not here: the refusal names each of them.
MISSING = {
    "r21950_fft": ["aten::_fft_r2c.out", "complex64"],
}

# What no runtime can do right: the file does not hold it, or the device cannot.
REFUSED = {
    "r13083_int64_big_full": ["cannot hold 1099511627776", "32 bits"],
    # The program was exported for 5; the refusal has both values.
    "r_const_int_arg_other": ["is 7", "exported for 5"],
    # The delegate has four outputs of one shape for five of the program, and the file does not say which repeats.
    "r20257_alias": ["does not say which of them repeat"],
}

PROGRAMS = sorted(path.stem for path in FOLDER.glob("*.pte"))


def test_every_expectation_has_a_program() -> None:
    assert {*MISSING, *REFUSED} < set(PROGRAMS)


@pytest.mark.parametrize("name", PROGRAMS)
def test_reported_program(name: str) -> None:
    outcome, message = replay(read_saved(FOLDER / f"{name}.pte"))
    expected = MISSING.get(name) or REFUSED.get(name)
    if expected is None:
        assert (outcome, message) == ("right", "")
    else:
        assert outcome == "refused", message
        assert all(part in message for part in expected), message
        assert "\n" not in message
