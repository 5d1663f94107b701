"""Rendered kernels on disk: later processes do not render them, but for what has changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executorch_webgpu.gpu import kernel
from executorch_webgpu.gpu.device import Device
from executorch_webgpu.gpu.kernel import Kernels
from executorch_webgpu.gpu.rendered import RenderedKernels

TEMPLATE = """{{#
A kernel for a test.

Inputs:
  n = 1 | 2: a number
#}}
{library}
@group(0) @binding(0) var<storage, read_write> out: array<u32>;
@compute @workgroup_size(1) fn main() {{ out[0] = {{{{ n }}}}u; }}
"""
values = st.one_of(st.booleans(), st.integers(0, 2), st.sampled_from([0.0, 1.0, None, "1", "True", (1,), (1.0,)]))


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, ...]:
    """A folder with a kernel, and a cache that is empty."""
    monkeypatch.setenv("ET_WEBGPU_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ET_WEBGPU_PIPELINE_CACHE", raising=False)
    folder = tmp_path / "kernels" / "family"
    folder.mkdir(parents=True)
    (folder / "a.wgsl").write_text(TEMPLATE.format(library=""))
    return (tmp_path / "kernels",)


def test_a_later_process_finds_them(
    device: Device, roots: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = [Kernels(device, roots).source("family/a", {"n": n}).code for n in (1, 2)]
    assert len(list((tmp_path / "cache" / "kernels").iterdir())) == 2

    def nothing(roots: tuple[Path, ...]) -> None:
        raise AssertionError("what is known is not rendered")

    with monkeypatch.context() as patch:
        patch.setattr(kernel, "_environment", nothing)
        assert [Kernels(device, roots).source("family/a", {"n": n}).code for n in (1, 2)] == codes
        with pytest.raises(AssertionError, match="not rendered"):
            Kernels(device, roots).source("family/a", {"n": 3})
        patch.setenv("ET_WEBGPU_PIPELINE_CACHE", "0")
        with pytest.raises(AssertionError, match="not rendered"):
            Kernels(device, roots).source("family/a", {"n": 1})


def test_what_has_changed_is_rendered_again(device: Device, roots: tuple[Path, ...]) -> None:
    """Also what a kernel includes."""
    (root,) = roots
    assert "= 1u" in Kernels(device, roots).source("family/a", {"n": 1}).code
    (root / "family" / "b.wgsl").write_text("const B = 7u;\n")
    (root / "family" / "a.wgsl").write_text(TEMPLATE.format(library='{% include "family/b.wgsl" %}'))
    assert "B = 7u" in Kernels(device, roots).source("family/a", {"n": 1}).code
    (root / "family" / "b.wgsl").write_text("const B = 8u;\n")
    kernel._environment.cache_clear()
    assert "B = 8u" in Kernels(device, roots).source("family/a", {"n": 1}).code


@given(
    known=st.dictionaries(st.sampled_from("abc"), values, max_size=3),
    other=st.dictionaries(st.sampled_from("abc"), values),
)
def test_templates_are_told_apart(
    tmp_path_factory: pytest.TempPathFactory, known: Mapping[str, object], other: Mapping[str, object]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ET_WEBGPU_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("ET_WEBGPU_PIPELINE_CACHE", raising=False)
        kernels = RenderedKernels(())
        texts = {
            repr(sorted(t.items())) + dialect: (t, dialect) for t in (known, other) for dialect in ("dawn", "wgpu")
        }
        for text, (template, dialect) in texts.items():
            assert kernels.text("a", template, dialect, lambda text=text: text) == text
        for text, (template, dialect) in texts.items():
            assert RenderedKernels(()).text("a", template, dialect, lambda: "rendered again") == text
