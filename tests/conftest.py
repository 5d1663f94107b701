"""Fixtures that many tests share: a device, models, their torch twins, and the conformance pack.

Exporting a model takes from half a minute to four. The exports that the collected tests need start at once,
in processes of their own, and the tests that wait for them come last. Of
several workers (``pytest -n``), one starts them.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import export_smollm2
from executorch_webgpu import Runtime
from executorch_webgpu.gpu.device import Device, open_device
from executorch_webgpu.text.tokenizer import Tokenizer
from tests.conformance import pack
from tests.fast_slice import fast_slice, needs_exporter
from tests.models.tiny_llama import TINY_LLAMAS, TinyLlama
from tests.text.tiny_vocabulary import write_bpe, write_spm

if TYPE_CHECKING:
    from tests.models.eager import EagerLlama

ROOT = Path(__file__).parents[1]
# By fixture: the command that exports what it gives. Without work to do, each ends at once.
EXPORTERS = {
    "zoo": ["-m", "tests.zoo", "--export"],
    "tiny_llama": ["-m", "tests.models.tiny_llama"],
    "smollm2": ["examples/export_smollm2.py"],
}

EXPORTER, FIRST_WORKER = "executorch.exir", "gw0"


class Export:
    """An exporting process. The owner must call ``stop``."""

    def __init__(self, arguments: list[str]) -> None:
        self.output = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed by stop()
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "examples"), *sys.path])},
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=self.output,
        )

    def wait(self) -> None:
        """Returns when the export is done; fails the test when it went wrong."""
        if self.process.wait() != 0:
            self.output.seek(0)
            pytest.fail(f"exporting failed:\n{self.output.read()[-2000:]}", pytrace=False)

    def stop(self) -> None:
        self.process.terminate()  # does nothing to a process that has ended
        self.process.wait()
        self.output.close()


EXPORTS = pytest.StashKey[dict[str, Export]]()


def wait_for_export(config: pytest.Config, fixture: str) -> None:
    """Returns when the exports of a fixture of ``EXPORTERS`` are in the cache; fails the test when one went wrong."""
    exports = config.stash[EXPORTS]
    if fixture not in exports:  # another worker's runs: this one waits for its locks, and finds its work done
        exports[fixture] = Export(EXPORTERS[fixture])
    exports[fixture].wait()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="only what takes a minute and needs no torch (make test-fast)")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    is_test = collection_path.suffix == ".py" and config.getoption("fast")
    return True if is_test and needs_exporter(collection_path) else None


def pytest_configure(config: pytest.Config) -> None:
    config.stash[EXPORTS] = {}
    # A shell starts what it runs in the background with Ctrl-C ignored, and so would be the programs that we test.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure(config: pytest.Config) -> None:
    for export in config.stash[EXPORTS].values():
        export.stop()


def pytest_report_header() -> str:
    folder = pack.pack_folder()
    if folder is None:
        return f"conformance: {pack.VARIABLE} is not set, so its cases are left out"
    return f"conformance: {len(pack.manifest())} cases in {folder}"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if pack.pack_folder() is None:
        _keep(config, items, [item for item in items if "conformance_dir" not in _fixtures(item)])
    if config.getoption("fast"):
        _keep(config, items, fast_slice(items))
    order = list(EXPORTERS)
    items.sort(key=lambda item: max((order.index(name) + 1 for name in order if name in _fixtures(item)), default=0))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """The million objects of modules and tests are made without the garbage collector, and not looked at again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.option.collectonly:
        return
    if EXPORTER in sys.modules:  # a test file imports it
        from tests.differential.programs_cheap import make_export_cheap

        make_export_cheap()
    if os.environ.get("PYTEST_XDIST_WORKER", FIRST_WORKER) != FIRST_WORKER:
        return
    for name, command in EXPORTERS.items():
        if any(name in _fixtures(item) for item in session.items):
            session.config.stash[EXPORTS][name] = Export(command)


def _keep(config: pytest.Config, items: list[pytest.Item], kept: list[pytest.Item]) -> None:
    config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
    items[:] = kept


def _fixtures(item: pytest.Item) -> list[str]:
    return getattr(item, "fixturenames", [])


@pytest.fixture(scope="module")
def device() -> Iterator[Device]:
    """The engine and adapter that the environment chooses; by default the best of this machine.

    Mesa's CPU driver takes up to 8 MB for each kernel that it compiles, and gives them back with the device.
    """
    with open_device() as opened:
        yield opened


@pytest.fixture(scope="module")
def own_runtime() -> Iterator[Runtime]:
    """A runtime of this file alone: garbage that other files left is never collected from its device's memory."""
    runtime = Runtime()
    yield runtime
    runtime.device.close()


@pytest.fixture(scope="session")
def conformance_dir() -> Path:
    """The folder of the conformance pack; tests that use this are left out when there is none."""
    folder = pack.pack_folder()
    assert folder is not None
    return folder


@pytest.fixture(scope="session", params=TINY_LLAMAS)
def tiny_llama(request: pytest.FixtureRequest) -> TinyLlama:
    """Each of the small exported Llamas; ``parametrize("tiny_llama", ["4w"], indirect=True)`` picks some."""
    wait_for_export(request.config, "tiny_llama")
    return TINY_LLAMAS[request.param]


@pytest.fixture(scope="session")
def tiny_eager(tiny_llama: TinyLlama) -> EagerLlama:
    """``tiny_llama`` in torch. Its KV cache is shared: begin with ``turns``, ``greedy`` or ``reset``."""
    from tests.models.eager import load_eager

    return load_eager(tiny_llama.params, tiny_llama.write_checkpoint, tiny_llama.options)


@dataclass(frozen=True)
class SmolLM2:
    program: Path  # the stock export, .pte
    gguf: Path  # tokenizer and chat template


@pytest.fixture(scope="session")
def smollm2(request: pytest.FixtureRequest) -> SmolLM2:
    """SmolLM2-135M-Instruct, exported with 4-bit weights for 512 tokens a step and a context of 1024."""
    wait_for_export(request.config, "smollm2")
    return SmolLM2(export_smollm2.cached_program(), export_smollm2.fetch_gguf())


@pytest.fixture(scope="session")
def smollm2_eager(smollm2: SmolLM2) -> EagerLlama:
    """``smollm2`` in torch, about 1 GB. Its KV cache is shared; see ``tiny_eager``."""
    from tests.models.eager import load_eager

    params = export_smollm2.read_params(smollm2.gguf)
    return load_eager(params, lambda path: export_smollm2.write_checkpoint(smollm2.gguf, path), export_smollm2.OPTIONS)


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """SmolLM2's GGUF file, without waiting for its export."""
    return export_smollm2.fetch_gguf()


@pytest.fixture(scope="session")
def bpe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF file with a small byte-level BPE vocabulary and a chat template."""
    return write_bpe(tmp_path_factory.mktemp("vocabulary") / "bpe.gguf")


@pytest.fixture(scope="session")
def bpe(bpe_file: Path) -> Tokenizer:
    """The tokenizer of ``bpe_file``."""
    return Tokenizer.from_file(bpe_file)


@pytest.fixture(scope="session")
def spm(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A tokenizer with a small SentencePiece vocabulary."""
    return Tokenizer.from_file(write_spm(tmp_path_factory.mktemp("vocabulary") / "spm.gguf"))
