"""Which replica gets which prompt, as far as that is plain arithmetic."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executorch_webgpu.ray.prefixes import BLOCK, MOST_BLOCKS, PrefixTable, prefix_blocks

SYSTEM = {"role": "system", "content": "Be brief."}


def blocks(**request: Any) -> tuple[int, ...]:
    return prefix_blocks(json.dumps({"model": "m", "stream": True, **request}).encode())


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def test_a_table_forgets_replicas_that_are_gone() -> None:
    table, loads = PrefixTable(), {"a": 0, "b": 0}
    first, second = blocks(messages=[user("one")]), blocks(messages=[user("two")])
    for prompt, replica in ((first, "a"), (second, "a"), (second, "b")):
        table.remember(prompt, replica)
    table.keep({"b"})
    assert table.held == {"b"}
    assert table.ranked(second, loads)[0] == "b"


def test_a_turn_begins_like_the_one_before() -> None:
    first = blocks(messages=[SYSTEM, user("hello")])
    second = blocks(
        temperature=0.5, messages=[SYSTEM, user("hello"), {"role": "assistant", "content": "x"}, user("more")]
    )
    other = blocks(messages=[SYSTEM, user("bye")])
    assert len(first) == 2 and second[:2] == first and len(second) == 4
    assert other[0] == first[0] and other[1] != first[1]
    assert blocks(messages=[SYSTEM, user("hello")], tools=[{"type": "function"}])[0] != first[0]


@pytest.mark.parametrize("field", ["prompt", "input"])
def test_long_texts_have_several_beginnings(field: str) -> None:
    one, two = ("x" * 2 * BLOCK + end for end in "ab")
    first, second = blocks(**{field: one}), blocks(**{field: two})
    assert len(first) == len(second) == 3 and first[:2] == second[:2] and first[2] != second[2]
    assert len(blocks(**{field: "x" * BLOCK * 100})) == MOST_BLOCKS


def test_prompts_of_completions() -> None:
    assert blocks(prompt=["a", "b"])[0] == blocks(prompt="a")[0]
    assert len(blocks(prompt=[1, 2, 3])) == 1
    assert len(blocks(prompt=[[1, 2], [3]])) == 2
    assert blocks(instructions="x", input="y")[0] == blocks(instructions="x", input="z")[0]
    assert blocks(file="x") == ()


@given(st.binary() | st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x)).map(json.dumps))
def test_any_body_has_some_or_none(body: bytes | str) -> None:
    assert prefix_blocks(body.encode() if isinstance(body, str) else body) == ()


@given(st.integers(0, 3000), st.booleans())
def test_a_body_that_is_cut_off(left: int, named: bool) -> None:
    """Wherever it is cut, and whatever comes before the prompt."""
    messages = json.dumps({"messages": [user("é" * 3000)]}, ensure_ascii=False).encode()
    body = (b'{"model": "m", ' + messages[1:] if named else messages)[:left]
    other = (messages[:-9] + b"x" * 9)[:left]
    blocks = prefix_blocks(body)
    assert len(blocks) <= MOST_BLOCKS and (bool(blocks) or left < 40)
    if not named:
        assert blocks == prefix_blocks(other)


@given(
    st.dictionaries(
        st.sampled_from(["messages", "prompt", "input", "tools", "instructions", "max_output_tokens"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5),
            lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=3), x, max_size=3),
            max_leaves=5,
        ),
    )
)
def test_any_request_has_some_or_none(request: dict[str, Any]) -> None:
    body = json.dumps(request).encode()
    assert prefix_blocks(body) == prefix_blocks(body)


def test_a_prompt_that_is_new_goes_to_the_idlest() -> None:
    table = PrefixTable()
    assert table.ranked((1, 2), {"a": 3, "b": 1, "c": 2}) == ["b", "c", "a"]
    assert table.ranked((), {}) == []
    # Of those that are equally idle, every router chooses the same for a prompt, and others for others.
    equal = {"a": 0, "b": 0, "c": 0}
    chosen = [table.ranked((block,), equal)[0] for block in range(60)]
    assert chosen == [PrefixTable().ranked((block,), dict(reversed(equal.items())))[0] for block in range(60)]
    assert min(chosen.count(name) for name in equal) > 8


def test_a_prompt_that_is_known_goes_where_most_of_it_is() -> None:
    table = PrefixTable(busier=4)
    table.remember((1,), "a")
    table.remember((1, 2), "b")
    assert table.ranked((1, 2, 3), {"a": 0, "b": 3, "c": 0})[:2] == ["b", "a"]
    assert table.ranked((1, 9), {"a": 2, "b": 3, "c": 0})[:2] == ["a", "b"]
    # One that is too busy comes after the others.
    assert table.ranked((1, 2, 3), {"a": 0, "b": 5, "c": 0}) == ["a", "c", "b"]
    # A beginning that is missing in the middle ends what is known.
    table.remember((5, 7), "c")
    assert table.ranked((6, 7), {"b": 0, "c": 1})[0] == "b"


def test_only_so_much_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("executorch_webgpu.ray.prefixes.MOST_KNOWN", 4)
    table = PrefixTable()
    for block in range(10):
        table.remember((block,), "a")
    assert len(table._holders) == 4
    assert table.ranked((9,), {"a": 1, "b": 0})[0] == "a"
    assert table.ranked((0,), {"a": 1, "b": 0})[0] == "b"
