"""The structure that the source must keep: one-way imports, small files, and an import that costs little."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import executorch_webgpu.ops  # noqa: F401, registers the operators
from executorch_webgpu.ops.registry import names

PACKAGE = Path(__file__).parents[1] / "src" / "executorch_webgpu"
FILES = sorted(PACKAGE.rglob("*.py"))

# What a layer may import, besides itself, `errors` and its like, and the layers that these may import.
BELOW = {
    "__main__": {"cli"},
    "cli": {"ray", "report", "__init__", "exit_codes"},
    "report": {"runtime"},
    "ray": {"serve"},
    "serve": {"llm", "__init__"},
    "llm": {"runtime", "models", "text"},
    "attention": {"runtime"},
    "models": {"format", "text"},
    "text": {"format"},
    "runtime": {"graph", "portable", "format"},
    "graph": {"ops", "portable", "format"},
    "portable": {"ops", "format"},
    "ops": {"gpu"},
    "gpu": set(),
    "format": set(),
    "errors": set(),
    "closing": set(),
    "folders": set(),
    "exit_codes": set(),
    "__init__": {"runtime"},
}
ENGINES = {"wgpu", "wgpudawn", "rendercanvas"}
EXPORTERS = {"torch", "executorch", "torchao"}


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def layer(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def allowed(name: str) -> set[str]:
    return {name, "errors", "closing", "folders"}.union(*(allowed(below) for below in BELOW[name]))


def imports(path: Path) -> Iterator[str]:
    """Absolute names of what a file imports, wherever in it, and whatever only type checkers see."""
    package = ("executorch_webgpu", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join([*base, *([node.module] if node.module else [])])
            # `from . import x` names modules; `from .x import name` names what is in one.
            yield from ([stem] if node.module else (f"{stem}.{alias.name}" for alias in node.names))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "__import__"):
            yield ast.literal_eval(node.args[0]) if isinstance(node.args[0], ast.Constant) else "wgpu"


def imported_layers(path: Path) -> set[str]:
    found = set()
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "executorch_webgpu":
            stem = parts[1] if len(parts) > 1 else "__init__"
            known = (PACKAGE / stem).is_dir() or (PACKAGE / f"{stem}.py").is_file()
            found.add(stem if known else "__init__")  # `from .. import __version__`
    return found


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_imports_go_one_way(path: Path) -> None:
    assert layer(path) in BELOW, f"say in {Path(__file__).name} which layer this belongs to"
    assert imported_layers(path) <= allowed(layer(path))


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_engines_are_imported_by_gpu_only_and_exporters_by_nobody(path: Path) -> None:
    tops = {name.split(".")[0] for name in imports(path)}
    assert not tops & EXPORTERS
    assert layer(path) == "gpu" or not tops & ENGINES


def test_the_engines_are_imported_at_all() -> None:
    """So the test above looks at something."""
    assert {"wgpu"} <= {name.split(".")[0] for path in FILES if layer(path) == "gpu" for name in imports(path)}


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_files_are_small_and_named_for_what_they_hold(path: Path) -> None:
    assert not {part.removesuffix(".py") for part in path.relative_to(PACKAGE).parts} & {
        *("util", "utils", "helper", "helpers", "manager", "managers", "common", "misc")
    }
    assert len(path.read_text().splitlines()) <= 400, "split it by meaning"


@pytest.mark.slow
def test_importing_the_package_loads_no_engine_and_no_exporter() -> None:
    code = "from executorch_webgpu import Runtime; import json, sys; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    tops = {name.split(".")[0] for name in loaded}
    assert "executorch_webgpu" in tops
    assert not tops & (ENGINES | EXPORTERS)


# Passes ask operators for their traits. The operators that a module of ``graph/`` knows by name, and why.
KNOWN_BY_NAME = {
    # Gathers of rows, views and permutes that bring rows to the front, and attention over pages: it makes these.
    "batch_draft.py": (
        *("aten.index_select.default", "aten.permute_copy.default", "aten.select_copy.int", "aten.view_copy.default"),
        "aten.expand_copy.default",  # equal ones go away
    ),
    "batch_caches.py": ("et_webgpu.paged_sdpa.default",),
    # Results side by side; which part of a table an index means; a residual after a layer that is in parts.
    "binding_limit.py": (
        *("aten.add.Tensor", "aten.cat.default", "aten.ge.Scalar", "aten.unsqueeze_copy.default", "aten.where.self"),
        "et_webgpu.index_in_part.default",
    ),
    # The two operators whose formulas the persistent kernel computes, layer by layer.
    "decoder_layers.py": ("et_webgpu.fused_linear.default", "et_webgpu.rope_sdpa_with_kv_cache.default"),
    "build.py": ("et_vk.prepack.default", "aten.clone.default"),  # constants by another name; the copies that it makes
    "in_place.py": (  # what changes a copy, and what changes it in place
        *("aten.index_put.default", "aten.index_put_.default", "aten._unsafe_index_put.default"),
        *("aten.index_copy.default", "aten.slice_scatter.default", "et_webgpu.slice_scatter_.default"),
        *("aten.select_scatter.default", "et_webgpu.select_scatter_.default"),
    ),
    "casts.py": ("dim_order_ops._to_dim_order_copy.default", "aten.cat.default"),  # makes casts; torch promotes for cat
    # Casts and broadcasts of ``copy``, which is no operator; live integers; what reads an element on the host.
    "lowering/emit.py": (
        "add",
        *("aten.expand_copy.default", "dim_order_ops._to_dim_order_copy.default", "et_vk.select_as_symint.default"),
    ),
    "draws.py": ("et_webgpu.feed_tokens.default", "et_webgpu.sample_rows.default"),  # makes them
    "sampler.py": ("et_webgpu.sample_token.default",),  # makes it
    # What ``fused_convolution`` computes behind the product.
    "fusion/convolution.py": (
        *("aten._native_batch_norm_legit_no_training.default", "aten.clamp.default", "aten.convolution.default"),
        *("aten.hardtanh.default", "aten.relu.default", "aten.relu6.default", "et_vk.conv_with_clamp.default"),
        "et_webgpu.fused_convolution.default",
    ),
    "fusion/elementwise.py": ("et_webgpu.elementwise_chain.default",),  # makes it
    "fusion/projection.py": ("et_webgpu.fused_linear.default",),  # makes it
    "fusion/quantized_weights.py": (  # replaces them in one formula
        *("quantized_decomposed.dequantize_per_channel.default", "torchao.dequantize_affine.default"),
        *("aten.linear.default", "aten.addmm.default", "aten.mm.default"),
        *("aten.permute_copy.default", "aten.t_copy.default"),
    ),
    "fusion/dynamic_linear.py": (
        *("et_vk.linear_dq8ca_q4gsw.default", "torchao.choose_qparams_affine.default"),  # two, of which it makes
        "et_webgpu.linear_q4gsw_dq8.default",
    ),
    "fusion/views.py": ("aten.view_copy.default",),  # makes views of squeezes, and other ones of views
    # What ``fused_linear`` computes beside products: it takes these operators in.
    "fusion/epilogue.py": ("aten.add.Tensor",),
    "fusion/gate.py": ("aten.mul.Tensor", "aten.sigmoid.default"),
    "fusion/norm_linear.py": ("et_vk.rms_norm.default",),
    # A product with a transposed matrix, which is a linear layer.
    "fusion/transposed.py": (
        *("aten.addmm.default", "aten.linear.default", "aten.mm.default", "aten.permute.default"),
        *("aten.permute_copy.default", "aten.t_copy.default", "aten.transpose_copy.int"),
    ),
    # The one formula that ``rms_norm`` stands for.
    "fusion/rms_norm.py": (
        *("aten.add.Scalar", "aten.add.Tensor", "aten.div.Tensor", "aten.mean.dim", "aten.mul.Tensor"),
        *("aten.pow.Tensor_Scalar", "aten.rsqrt.default", "aten.sqrt.default", "et_vk.rms_norm.default"),
    ),
    # The operators that ``rope_sdpa_with_kv_cache`` stands for, and the rows of tables that it finds for itself.
    "fusion/rope_cache.py": (
        *("add", "aten.slice_copy.Tensor", "et_vk.apply_rotary_emb.default", "et_vk.apply_rotary_emb_hf.default"),
        *("et_webgpu.rope_sdpa_with_kv_cache.default", "llama.sdpa_with_kv_cache.default"),
        *("aten.index_select.default", "aten.select_copy.int", "et_webgpu.paged_sdpa.default"),
        *("et_webgpu.rope_paged_sdpa.default", "sdpa_with_kv_cache.default"),
    ),
}


def test_modules_that_know_operators_are_there() -> None:
    assert all((PACKAGE / "graph" / module).is_file() for module in KNOWN_BY_NAME)


@pytest.mark.parametrize("path", [p for p in FILES if layer(p) == "graph"], ids=relative)
def test_passes_know_operators_by_their_traits(path: Path) -> None:
    tree = ast.parse(path.read_text())
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    known = KNOWN_BY_NAME.get(path.relative_to(PACKAGE / "graph").as_posix(), ())
    assert texts & set(names()) == set(known), "ask for a trait, or say in this test why the name must be known"
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
            of_name = [o for o in operands if isinstance(o, ast.Attribute) and o.attr == "name"]
            others = [o for o in ast.walk(node) if isinstance(o, ast.Constant) and isinstance(o.value, str)]
            assert not of_name or not others, f"{ast.unparse(node)} tests a part of a name"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            on_name = isinstance(node.func.value, ast.Attribute) and node.func.value.attr == "name"
            assert not on_name, f"{ast.unparse(node)} tests a part of a name"


# Folders of tests that are about several packages.
OTHER_FOLDERS = {"conformance", "differential", "served", "threads", "zoo"}


def test_folders_of_tests_mirror_the_source() -> None:
    tests = Path(__file__).parent
    folders = [path for path in tests.rglob("*") if path.is_dir() and next(path.glob("test_*.py"), None)]
    assert len(folders) > 8
    for folder in (path.relative_to(tests) for path in folders):
        known = folder.parts[0] in OTHER_FOLDERS or (PACKAGE / folder).is_dir() or (tests.parent / folder).is_dir()
        assert known, f"tests/{folder} mirrors no package: rename it, or name it in OTHER_FOLDERS"
