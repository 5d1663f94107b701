from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executorch_webgpu.llm.stop_strings import StopStrings

LETTERS = "ab\n"
STRINGS = st.lists(st.text(LETTERS, min_size=1, max_size=4), max_size=4)


def ended(text: str, strings: list[str]) -> str | None:
    """The text before a stop string, read one character at a time; None when it has none."""
    for end in range(len(text) + 1):
        if lengths := [len(string) for string in strings if text[:end].endswith(string)]:
            return text[: end - max(lengths)]
    return None


@given(pieces=st.lists(st.text(LETTERS, max_size=5), max_size=8), strings=STRINGS)
def test_any_text_in_any_pieces(pieces: list[str], strings: list[str]) -> None:
    stops = StopStrings(strings)
    given_away, text = "", ""
    for piece in pieces:
        given_away += stops.push(piece)
        text += piece
        before = ended(text, strings)
        assert stops.found == (before is not None)
        if before is not None:
            assert given_away == before
            continue
        assert text.startswith(given_away)
        held = text[len(given_away) :]
        assert not held or any(string.startswith(held) for string in strings), "nothing is held back without a reason"
        longest = max((n for s in strings for n in range(len(s)) if text.endswith(s[:n])), default=0)
        assert len(held) == longest, "and nothing is given away that may begin a stop string"
    given_away += stops.finish()
    before = ended(text, strings)
    assert given_away == (text if before is None else before)


@pytest.mark.parametrize(
    ("pieces", "strings", "shown"),
    [
        (["one t", "wo th", "ree"], ["two"], ["one ", ""]),
        (["###", "# User:"], ["### User:"], ["", "#"]),
        (["a", "b", "c"], ["bcd"], ["a", "", "", "bc"]),
        (["abcd"], ["abcde", "cd", "bcd"], ["a"]),
        (["x", "y"], [], ["x", "y", ""]),
    ],
)
def test_what_is_held_back(pieces: list[str], strings: list[str], shown: list[str]) -> None:
    stops = StopStrings(strings)
    got = []
    for piece in pieces:
        got.append(stops.push(piece))
        if stops.found:
            break
    else:
        got.append(stops.finish())
    assert got == shown
