"""One small Ray cluster on the loopback interface for all tests here, and a model that they serve."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_agent_register_timeout_ms"] = "300000"  # noqa: SIM112, Ray's own; on a machine that is busy
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # so that its processes talk over the loopback interface

from executorch_webgpu.models.convert import convert
from executorch_webgpu.models.llama import LlamaOptions
from tests.llm.chat_model import ChatModel, write_chat_model

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """The address of the cluster, to which this process is connected."""
    import ray  # which the fast tests do without

    # Sockets lie in this folder, and their paths are short.
    folder = tempfile.mkdtemp(prefix="ray-")
    paths = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT), *filter(None, [paths])])
    try:
        context = ray.init(
            num_cpus=3,  # Ray starts a process for each at once; what should not wait for one asks for none
            num_gpus=0,
            include_dashboard=False,
            object_store_memory=100 << 20,
            logging_level="warning",
            log_to_driver=False,
            _temp_dir=folder,
        )
        yield context.address_info["gcs_address"]
    finally:
        ray.shutdown()
        os.environ["PYTHONPATH"] = paths
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    return write_chat_model(tmp_path_factory.mktemp("model"), 128)


@pytest.fixture(scope="session")
def served_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program with a tokenizer inside, whose answers never end by themselves."""
    folder = tmp_path_factory.mktemp("served")
    model = write_chat_model(folder, 512)
    program = folder / "served.pte"
    options = LlamaOptions("f32", max_seq_len=33, max_context_len=512)
    convert(model.program.with_suffix(".gguf"), program, options, tokenizer=model.tokenizer)
    return program
