from __future__ import annotations

from pathlib import Path

import pytest

from executorch_webgpu.llm.tokenizer import Tokenizer
from tests.conftest import SmolLM2
from tests.llm.tiny_vocabulary import write_bpe, write_spm


@pytest.fixture(scope="session")
def bpe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bpe(tmp_path_factory.mktemp("vocabulary") / "bpe.gguf")


@pytest.fixture(scope="session")
def bpe(bpe_file: Path) -> Tokenizer:
    return Tokenizer.from_file(bpe_file)


@pytest.fixture(scope="session")
def spm(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.from_file(write_spm(tmp_path_factory.mktemp("vocabulary") / "spm.gguf"))


@pytest.fixture(scope="session")
def smollm2_gguf(smollm2: SmolLM2) -> Path:
    return smollm2.gguf
