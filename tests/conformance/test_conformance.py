"""The peer's operator catalog: programs that its own exporter made, with inputs and golden outputs.

A program whose operators are all here must give the golden output within the case's tolerance; any other must be
refused at load with exactly the operators that are missing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from executorch_webgpu import Runtime, UnsupportedProgramError
from executorch_webgpu.runtime import inspect_program
from tests.conformance.pack import manifest

# Suites that must run, not be refused; the issue that adds an operator adds its suite.
REQUIRED = {
    "abs",
    "add",
    "addmm",
    "amax",
    "amin",
    "apply_rotary_emb_interleaved",
    "argmax",
    "argmin",
    "bitwise_and",
    "bitwise_not",
    "bitwise_or",
    "cat",
    "clamp",
    "cos",
    "embedding",
    "eq",
    "et_vk_sdpa",
    "exp",
    "expand_copy",
    "flip",
    "floor_divide",
    "ge",
    "gelu",
    "gt",
    "hardswish",
    "hardtanh",
    "layer_norm",
    "le",
    "leaky_relu",
    "linear_fp32",
    "logical_and",
    "logical_or",
    "lt",
    "minimum",
    "mul",
    "neg",
    "permute",
    "pixel_shuffle",
    "pow",
    "pow_scalar",
    "relu",
    "repeat",
    "rms_norm",
    "round",
    "rsqrt",
    "select",
    "sigmoid",
    "sin",
    "slice",
    "split_with_sizes_copy",
    "sqrt",
    "squeeze",
    "sub",
    "tanh",
    "to_copy",
    "to_copy_bool_input_to_float",
    "to_copy_bool_to_float",
    "unsqueeze",
    "view_copy",
}

CASES = [pytest.param(case, id=f"{case['op']}-{case['case']}") for case in manifest()]


def load_array(folder: Path, entry: dict[str, Any]) -> np.ndarray:
    return np.frombuffer((folder / entry["path"]).read_bytes(), entry["dtype"]).reshape(entry["shape"])


@pytest.mark.parametrize("case", CASES)
def test_case(conformance_dir: Path, case: dict[str, Any]) -> None:
    path = conformance_dir / case["pte"]
    operators = [o for m in inspect_program(path).methods for o in m.operators]
    missing = {o.name: o.count for o in operators if not o.supported}
    with Runtime.get().load_program(path) as program:
        if missing:
            assert case["op"] not in REQUIRED, f"{sorted(missing)} must be supported"
            with pytest.raises(UnsupportedProgramError) as error:
                program.load_method("forward")
            assert error.value.operators == missing
            return
        outputs = program.load_method("forward").execute([load_array(conformance_dir, i) for i in case["inputs"]])
    golden = case["golden"]
    expected = load_array(conformance_dir, golden)
    got = outputs[golden["output_index"]]
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    if got.dtype.kind != "f":
        np.testing.assert_array_equal(got, expected)
        return
    error = np.abs(got.astype(np.float64) - expected)
    allowed = np.maximum(case["atol"], case["rtol"] * np.abs(expected))
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    assert (error[~np.isnan(error)] <= allowed[~np.isnan(error)]).all(), f"off by up to {np.nanmax(error)}"
