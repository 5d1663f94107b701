"""Heads of WGSL files, template values as one line, and what a load says about inputs that are missing or unknown."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from executorch_webgpu.errors import KernelError
from executorch_webgpu.gpu.capabilities import Features
from executorch_webgpu.gpu.head import Head, TemplateInput, read_head, read_variant, write_variant
from executorch_webgpu.gpu.kernel import head_of, kernel_names, render

NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="ascii", exclude_characters="\n\r}"), max_size=12),  # "#}" ends a head
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=6,
)
SOFTMAX = """{#
out = softmax(x) over rows
of ``width`` elements. One workgroup computes a row.

Inputs:
  log = False | True: whether the logarithm
    of the result is wanted
  steps = (("a: b", 1),) | (): what is done
#}
"""
KERNEL = "@compute @workgroup_size({{ rows }}) fn main() {}"


def head_with(inputs: str) -> str:
    return f"{{#\nOf nothing.\n\nInputs:\n{inputs}\n#}}\n"


# -- heads ----------------------------------------------------------------------------------------------------------


def test_a_head_is_read() -> None:
    head = read_head("softmax", SOFTMAX + KERNEL)
    assert head == Head(
        "out = softmax(x) over rows of ``width`` elements. One workgroup computes a row.",
        (
            TemplateInput("log", (False, True), "whether the logarithm of the result is wanted"),
            TemplateInput("steps", ((("a: b", 1),), ()), "what is done"),
        ),
    )
    assert head.summary == "out = softmax(x) over rows of ``width`` elements."
    assert head.sample == {"log": False, "steps": (("a: b", 1),)}


def test_a_file_without_a_head_or_inputs() -> None:
    assert read_head("k", KERNEL) == read_head("k", "// {# no head #}\n") == Head("", ())
    assert read_head("k", "{# Of nothing. #}\n") == Head("Of nothing.", ())


@pytest.mark.slow
@given(st.lists(st.tuples(NAMES, st.lists(VALUES, min_size=1, max_size=3)), unique_by=lambda pair: pair[0], max_size=4))
def test_samples_are_read_as_they_were_written(inputs: list[tuple[str, list[object]]]) -> None:
    lines = [f"  {name} = {' | '.join(map(repr, samples))}: meaning: of {name}" for name, samples in inputs]
    head = read_head("k", head_with("\n".join(lines)))
    assert [(each.name, list(each.samples)) for each in head.inputs] == inputs
    assert all(each.meaning == f"meaning: of {each.name}" for each in head.inputs)


@pytest.mark.parametrize(
    "line",
    ["  rows: meaning", "  rows = 4", "  rows = four: meaning", "  rows = 4 |: meaning", "  rows = 4 + 4: meaning"],
)
def test_inputs_that_cannot_be_read(line: str) -> None:
    with pytest.raises(KernelError, match=r"^kernel 't/k': its (head has|input 'rows' is not written)"):
        read_head("t/k", head_with(line))


@pytest.mark.parametrize("line", ["rows = 4: meaning", " rows = 4: meaning"])
def test_lines_among_the_inputs_that_are_none(line: str) -> None:
    with pytest.raises(KernelError, match=re.escape(f"kernel 't/k': its head has {line.strip()!r} among its inputs")):
        read_head("t/k", head_with("  log = True: meaning\n" + line))


# -- at load --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ({}, "kernel 'k' needs the template inputs rows"),
        ({"rows": 1, "row": 2, "lane": 3}, "kernel 'k' has no template inputs lane, row"),
    ],
)
def test_rendering_with_other_inputs(tmp_path: Path, template: dict[str, object], message: str) -> None:
    (tmp_path / "k.wgsl").write_text(head_with("  rows = 4 | 8: of a workgroup") + KERNEL)
    with pytest.raises(KernelError, match=f"^{message}$"):
        render("k", template, "wgpu", Features.none(), [tmp_path])


def test_rendering_with_these_inputs(tmp_path: Path) -> None:
    (tmp_path / "t" / "k").mkdir(parents=True)
    (tmp_path / "t" / "k" / "kernel.wgsl").write_text(head_with("  rows = 4 | 8: of a workgroup") + KERNEL)
    (tmp_path / "t" / "library.wgsl").write_text("{# Of nothing. #}\nfn nothing() {}")
    assert kernel_names([tmp_path]) == ["t/k"]
    sample = head_of("t/k", (tmp_path,)).sample
    assert render("t/k", sample, "wgpu", Features.none(), [tmp_path]).workgroup_size == ("4", "1", "1")


def test_a_kernel_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="there is no kernel 'none'"):
        head_of("none", (tmp_path,))


# -- variants as text -----------------------------------------------------------------------------------------------


@given(st.dictionaries(NAMES, VALUES, max_size=4))
@example({"kind": "True", "unit": "vec4<u32>", "steps": (("x * p", (("x", 0),)),), "empty": ""})
@example({"expression": "a b=1", "other": "'"})
def test_a_variant_is_read_as_it_was_written(values: dict[str, Any]) -> None:
    read = read_variant(write_variant(values))
    assert repr(read) == repr(values)  # True is not 1


def test_variants_that_a_user_writes() -> None:
    assert read_variant("  rows=4 unit=vec4<u32>  scales=float16 log=True gap=(1, 2) ") == {
        "rows": 4,
        "unit": "vec4<u32>",
        "scales": "float16",
        "log": True,
        "gap": (1, 2),
    }
    assert math.isinf(read_variant("limit=1e999")["limit"])  # type: ignore[arg-type]
    assert read_variant("") == {}


@pytest.mark.parametrize("text", ["rows", "rows 4", "=4", "4=rows", "a-b=4"])
def test_texts_that_are_no_variants(text: str) -> None:
    with pytest.raises(ValueError, match="is not name=value"):
        read_variant(text)
