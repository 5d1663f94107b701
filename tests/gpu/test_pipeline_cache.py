"""Compiled pipelines on disk: what processes that share a folder see, and what Dawn makes of it."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_webgpu.gpu import pipeline_cache
from executorch_webgpu.gpu.blob_cache import BlobCache
from executorch_webgpu.gpu.engine import load_engine
from executorch_webgpu.gpu.pipeline_cache import DawnCache, dawn_cache

KEYS = st.binary(max_size=40)
BLOBS = st.binary(max_size=300)
WGSL = """
@group(0) @binding(0) var<storage, read_write> out: array<u32>;
@compute @workgroup_size({n}) fn main() {{ out[0] = {n}u; }}
"""


@settings(max_examples=30, deadline=None)
@given(stored=st.dictionaries(KEYS, BLOBS, max_size=8), other=KEYS)
def test_a_blob_is_what_was_stored_last(tmp_path_factory: Any, stored: dict[bytes, bytes], other: bytes) -> None:
    folder = tmp_path_factory.mktemp("blobs")
    cache = BlobCache(folder)
    for key, value in stored.items():
        cache.store(key, b"before")
        cache.store(key, value)
    assert {key: BlobCache(folder).load(key) for key in stored} == stored
    assert cache.load(other) == stored.get(other)
    assert len(list(folder.iterdir())) == len(stored)


@settings(max_examples=30, deadline=None)
@given(key=KEYS, value=BLOBS, data=st.data())
def test_a_damaged_blob_is_not_there_and_goes(tmp_path_factory: Any, key: bytes, value: bytes, data: Any) -> None:
    folder = tmp_path_factory.mktemp("blobs")
    cache = BlobCache(folder)
    cache.store(key, value)
    (path,) = folder.iterdir()
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[at] ^= 1 + data.draw(st.integers(0, 254))
    else:
        del content[at:]
    path.write_bytes(content)
    assert cache.load(key) is None
    assert not path.exists()
    cache.store(key, value)
    assert cache.load(key) == value


def test_a_blob_of_another_key_is_damage(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path)
    cache.store(b"a", b"value")
    (of_a,) = tmp_path.iterdir()
    cache.store(b"b", b"other")
    (of_b,) = set(tmp_path.iterdir()) - {of_a}
    of_a.replace(of_b)
    assert cache.load(b"b") is None


def test_writers_at_once_leave_one_whole_blob(tmp_path: Path) -> None:
    values = [bytes([i]) * 100_003 for i in range(8)]
    cache = BlobCache(tmp_path)
    with ThreadPoolExecutor(8) as threads:
        stored = [threads.submit(cache.store, b"key", value) for value in values for _ in range(5)]
        seen = [cache.load(b"key") for _ in range(50)]
        for each in stored:
            each.result()
    assert set(seen) <= {None, *values}
    assert cache.load(b"key") in values
    assert len(list(tmp_path.iterdir())) == 1


def test_what_was_used_least_recently_goes(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path)
    paths = {}
    for i in range(10):
        before = set(tmp_path.iterdir())
        cache.store(bytes([i]), bytes(1000))
        (paths[i],) = set(tmp_path.iterdir()) - before
        os.utime(paths[i], (i, i))
    cache.load(bytes([0]))  # now it is the latest
    BlobCache(tmp_path, most_bytes=8000)
    kept = [i for i in range(10) if paths[i].exists()]
    assert kept == [0, 6, 7, 8, 9]
    BlobCache(tmp_path, most_bytes=8000)
    assert [i for i in range(10) if paths[i].exists()] == kept


def test_a_folder_that_cannot_be_written_is_no_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    cache = BlobCache(tmp_path / "file" / "pipelines")
    cache.store(b"key", b"value")
    assert cache.load(b"key") is None


def test_the_switch_and_unknown_releases_turn_it_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ET_WEBGPU_CACHE", str(tmp_path))
    (release, *_) = pipeline_cache._RELEASES
    monkeypatch.delenv("ET_WEBGPU_PIPELINE_CACHE", raising=False)
    assert dawn_cache(release) is dawn_cache(release) is not None
    assert (tmp_path / "pipelines").is_dir()
    assert dawn_cache("v0") is None
    monkeypatch.setenv("ET_WEBGPU_PIPELINE_CACHE", "0")
    assert dawn_cache(release) is None


class _Counting(BlobCache):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.found: list[bool] = []
        self.stored = 0

    def load(self, key: bytes) -> bytes | None:
        value = super().load(key)
        self.found.append(value is not None)
        return value

    def store(self, key: bytes, value: bytes) -> None:
        self.stored += 1
        super().store(key, value)


def test_dawn_stores_and_finds_what_it_compiles(tmp_path: Path) -> None:
    engine = load_engine("dawn")
    assert engine is not None

    def compile_all(cache: DawnCache) -> None:
        with cache.chained(engine.native):
            device = engine.request_device(engine.null_adapter(), [], {}, trusted=False)
        modules = [device.create_shader_module(code=WGSL.format(n=n)) for n in range(1, 6)]
        waits = [
            device.create_compute_pipeline_async(layout="auto", compute={"module": m, "entry_point": "main"})
            for m in modules
        ]
        for wait in waits:
            wait.sync_wait()
        device.destroy()

    first, second = _Counting(tmp_path), _Counting(tmp_path)
    for cache in (first, second):
        DAWN.append(DawnCache(cache))
        compile_all(DAWN[-1])
    assert first.found == [False] * 5 and first.stored == 5
    assert second.found == [True] * 5 and second.stored == 0


DAWN: list[DawnCache] = []  # as long as the process, whose devices may call them
