"""Options of a load: one object, or its fields by name."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from executorch_webgpu import InvalidInputError, LoadOptions, Program, Runtime
from tests.graph_builder import GraphBuilder
from tests.programs import write_delegated


@pytest.fixture
def program() -> Iterator[Program]:
    build = GraphBuilder()
    build.output(build.call("aten.sigmoid.default", build.input((4,)), build.tensor((4,))))
    with Runtime.get().load_program(write_delegated(build, ["float32", "float32"])) as program:
        yield program


def test_an_object_its_fields_and_both(program: Program) -> None:
    profiled = LoadOptions(profile=True)
    for options, changes, rows in (
        (None, {}, 0),
        (profiled, {}, 1),
        (None, {"profile": True}, 1),
        (profiled, {"profile": False}, 0),
    ):
        with program.load_method("forward", options, **changes) as method:
            method.execute([np.zeros(4, np.float32)])
            assert len(method.profile()) == rows


def test_what_is_no_choice_is_refused_when_it_is_said(program: Program) -> None:
    for wrong in ({"kv_cache_dtype": "q4"}, {"matmul_precision": "low"}, {"fuse": ["views", "nothing"]}):
        with pytest.raises(InvalidInputError, match="there is no"):
            LoadOptions(**wrong)
        with pytest.raises(InvalidInputError, match="there is no"):
            program.load_method("forward", **wrong)
    with pytest.raises(TypeError, match="cache_dtype"):
        program.load_method("forward", cache_dtype="f16")


def test_passes_are_kept_in_their_order() -> None:
    options = LoadOptions(fuse=iter(["gate", "views"]))
    assert options.fusions == options.fuse == ("views", "gate")
    assert LoadOptions.of(options, {"profile": True}).fusions == ("views", "gate")
