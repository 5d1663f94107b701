"""One server with a tiny model for the tests of what it answers, and that model by itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from openai import OpenAI

from executorch_webgpu import Runtime
from executorch_webgpu.llm import LanguageModel, SamplingParams
from executorch_webgpu.llm.generate import generate
from executorch_webgpu.text.tokenizer import Tokenizer
from tests.serve.serving import Serving, serving, write_tiny_model
from tests.serve.templates import THINKING

MODEL = "tiny"  # by the name of its file


@pytest.fixture(scope="session")
def tiny_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("served"), template=THINKING)


@pytest.fixture(scope="session")
def server(tiny_program: Path) -> Iterator[Serving]:
    with serving([str(tiny_program)]) as running:
        yield running


@pytest.fixture(scope="session")
def client(server: Serving) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=120) as client:
        yield client


@dataclass(frozen=True)
class Reference:
    """The served model in this process."""

    model: LanguageModel
    tokenizer: Tokenizer

    def text(self, prompt: list[int], params: SamplingParams) -> str:
        """What follows a prompt."""
        return "".join(piece.text for piece in generate(self.model, self.tokenizer, prompt, params))

    def logprobs(self, tokens: list[int]) -> np.ndarray:
        """Log probabilities [S, vocab] of what follows each of the tokens."""
        self.model.reset()
        rows = [self.model.step(token, position).astype(np.float64) for position, token in enumerate(tokens)]
        logits = np.stack(rows)
        logits -= logits.max(-1, keepdims=True)
        return np.asarray(logits - np.log(np.exp(logits).sum(-1, keepdims=True)))


@pytest.fixture(scope="session")
def reference(tiny_program: Path) -> Iterator[Reference]:
    with Runtime.get().load_program(tiny_program) as program, closing(LanguageModel(program)) as model:
        yield Reference(model, Tokenizer.from_files(program.named_data))
