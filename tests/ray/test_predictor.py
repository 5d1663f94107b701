"""Data sets by Ray Data: rows get the texts of an engine, and a job that is killed goes on where it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from executorch_webgpu import Runtime
from executorch_webgpu.errors import ClosedError, InvalidInputError
from executorch_webgpu.llm import Engine, SamplingParams
from executorch_webgpu.llm.embedder import Embedder
from executorch_webgpu.llm.stream_text import submit_text
from executorch_webgpu.models.convert import convert
from executorch_webgpu.ray import predictor
from executorch_webgpu.ray.data import Predictor
from executorch_webgpu.text.chat import encode_chat
from executorch_webgpu.text.tokenizer import Tokenizer
from tests.llm.chat_model import ChatModel
from tests.models.tiny_encoder import TinyEncoder
from tests.text.tiny_vocabulary import BPE_TOKENS

WRONG = ("a prompt is a text", "a prompt is a text", "1000000", "500 tokens")
GREEDY = SamplingParams(max_new_tokens=6)
NEW = ["generated_text", "finish_reason", "prompt_tokens", "new_tokens", "error"]


@pytest.fixture(scope="module")
def tokenizer(chat_model: ChatModel) -> Tokenizer:
    return Tokenizer.from_file(chat_model.tokenizer)


def texts(model: ChatModel, tokenizer: Tokenizer, prompts: Sequence[list[int]], params: SamplingParams) -> list[str]:
    """What an engine gives, without Ray."""
    with Runtime.get().load_program(model.program) as program, Engine(program, max_rows=16) as engine:
        begun = [submit_text(engine, tokenizer, prompt, params) for prompt in prompts]
        return ["".join(piece.text for piece in pieces) for pieces in begun]


@pytest.fixture(scope="module")
def actor(chat_model: ChatModel) -> Iterator[Predictor]:
    """What an actor holds, in this process."""
    made = predictor(chat_model.program, tokenizer=chat_model.tokenizer, params=GREEDY, max_rows=16)
    with made() as opened:
        yield opened


def test_rows_get_the_texts_of_an_engine(actor: Predictor, chat_model: ChatModel, tokenizer: Tokenizer) -> None:
    prompts = ["hello", "12 hello", "w"]
    wanted = texts(chat_model, tokenizer, [tokenizer.encode_prompt(p) for p in prompts], GREEDY)
    rows = {"id": [1, 2, 3], "prompt": prompts}
    batches: list[Any] = [pa.table(rows), pd.DataFrame(rows), {k: np.array(v) for k, v in rows.items()}]
    for batch in batches:
        made = actor.predict(batch)
        assert made.column_names == ["id", "prompt", *NEW]
        assert made["id"].to_pylist() == [1, 2, 3] and made["generated_text"].to_pylist() == wanted
        assert set(made["finish_reason"].to_pylist()) == {"length"}
        assert made["prompt_tokens"].to_pylist() == [len(tokenizer.encode_prompt(p)) for p in prompts]
        assert made["new_tokens"].to_pylist() == [6] * 3 and made["error"].null_count == 3


def test_prompts_of_every_kind(actor: Predictor, chat_model: ChatModel, tokenizer: Tokenizer) -> None:
    chats = [
        [{"role": "user", "content": "hello"}],
        [{"role": "system", "content": "1"}, {"role": "user", "content": "2", "name": "x"}],
    ]
    wanted = texts(chat_model, tokenizer, [encode_chat(tokenizer, chat) for chat in chats], GREEDY)
    assert actor.predict(pa.table({"prompt": chats}))["generated_text"].to_pylist() == wanted
    ids = [[5, 6, 7], [8, 9, 10]]
    wanted = texts(chat_model, tokenizer, ids, GREEDY)
    for batch in (pa.table({"prompt": ids}), {"prompt": np.array(ids)}):
        assert actor.predict(batch)["generated_text"].to_pylist() == wanted


def test_what_is_wrong_with_a_row_is_its_error(actor: Predictor) -> None:
    wrong: dict[str, Any] = {"missing": None, "empty": [], "outside": [10**6], "too long": [5] * 500}
    made = actor.predict(pa.table({"prompt": [[5, 6], *wrong.values(), [5, 6]]}))
    errors = made["error"].to_pylist()
    assert errors[0] is None and errors[-1] is None
    for error, words in zip(
        errors[1:-1], ("a prompt is a text", "a prompt is a text", "1000000", "500 tokens"), strict=True
    ):
        assert words in error
    assert [made[name].null_count for name in NEW[:-1]] == [4] * 4
    first, *_, last = made["generated_text"].to_pylist()
    assert first == last


def test_what_is_wrong_with_the_job_is_raised(actor: Predictor, chat_model: ChatModel) -> None:
    with pytest.raises(InvalidInputError, match="no column 'prompt', but text"):
        actor.predict(pa.table({"text": ["hello"]}))
    with pytest.raises(InvalidInputError, match="have finish_reason, error already"):
        actor.predict(pa.table({"prompt": ["hello"], "error": [1], "finish_reason": [2]}))
    with pytest.raises(InvalidInputError, match="choose generate or embed"):
        predictor("model.pte", task="translate")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="leave params and chat out"):
        predictor("model.pte", task="embed", chat=True)
    with pytest.raises(InvalidInputError, match="leave truncate out"):
        predictor("model.pte", truncate=True)
    broken = predictor(chat_model.program, tokenizer=chat_model.tokenizer, params=GREEDY, max_rows=16)()
    broken.close()
    with pytest.raises(ClosedError):
        broken.predict(pa.table({"prompt": ["hello"]}))


@pytest.mark.slow
def test_a_job_that_is_killed_goes_on(
    cluster: str, chat_model: ChatModel, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    prompts = [f"hello {i}" for i in range(18)]
    lines = (json.dumps({"id": i, "prompt": prompt}) for i, prompt in enumerate(prompts))
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    model = json.dumps({"source": str(chat_model.program), "tokenizer": str(chat_model.tokenizer)})
    command = [sys.executable, "-m", "tests.ray.data_job", cluster, str(tmp_path), model]

    def finished() -> set[int]:
        files = [p for p in (tmp_path / "checkpoints").glob("*.parquet") if not p.name.endswith(".pending.parquet")]
        return {i for file in files for i in pq.read_table(file)["id"].to_pylist()}

    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as job:
        while len(finished()) < 3 and job.poll() is None:
            time.sleep(0.05)
        os.kill(job.pid, signal.SIGKILL)
        _, errors = job.communicate()
    assert job.returncode == -signal.SIGKILL, errors
    done = finished()
    assert 3 <= len(done) < 18
    (tmp_path / "computed").unlink()

    subprocess.run(command, stdin=subprocess.DEVNULL, check=True)
    computed = [int(line) for line in (tmp_path / "computed").read_text().split()]
    assert not done & set(computed) and len(computed) == len(set(computed)) < 18
    answers = pq.read_table(tmp_path / "answers").to_pylist()
    assert sorted(row["id"] for row in answers) == list(range(18))  # each once
    answers.sort(key=lambda row: row["id"])
    tokens = [tokenizer.encode_prompt(prompt) for prompt in prompts]
    wanted = texts(chat_model, tokenizer, tokens, SamplingParams(max_new_tokens=40))
    assert [row["generated_text"] for row in answers] == wanted


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    TinyEncoder(fields={"vocab_size": len(BPE_TOKENS)}, poolings=("mean",)).write(folder)
    convert(folder, folder / "encoder.pte")
    return folder / "encoder.pte"


@pytest.mark.slow
def test_embeddings(encoder: Path, chat_model: ChatModel, tokenizer: Tokenizer) -> None:
    tokens, texts = [[5, 6, 7], [8], [9] * 20], ["hello", "12 hello"]
    with Runtime.get().load_program(encoder) as program, Embedder(program, tokenizer) as embedder:
        of_tokens, of_texts = embedder.embed(tokens), embedder.embed_texts(texts)
        longest = embedder.embed([[9] * embedder.max_tokens])
    with predictor(encoder, task="embed")() as actor:
        made = actor.predict(pa.table({"prompt": tokens}))
        assert made.column_names == ["prompt", "embedding", "prompt_tokens", "error"]
        assert made["embedding"].type == pa.list_(pa.float32())
        np.testing.assert_allclose(made["embedding"].to_pylist(), of_tokens, rtol=1e-5, atol=1e-6)
        assert made["prompt_tokens"].to_pylist() == [3, 1, 20] and made["error"].null_count == 3
        made = actor.predict(pa.table({"prompt": [tokens[0], [9] * 500, None, tokens[1], [10**6]]}))
        assert [error is None for error in made["error"].to_pylist()] == [True, False, False, True, False]
        np.testing.assert_allclose(made["embedding"][3].as_py(), of_tokens[1], rtol=1e-5, atol=1e-6)
        assert made["embedding"].null_count == made["prompt_tokens"].null_count == 3
        assert actor.predict(pa.table({"prompt": ["hello"]}))["error"][0].as_py() is not None  # no tokenizer
    with predictor(encoder, task="embed", truncate=True, tokenizer=chat_model.tokenizer, output="vector")() as actor:
        made = actor.predict(pa.table({"prompt": texts}))
        np.testing.assert_allclose(made["vector"].to_pylist(), of_texts, rtol=1e-5, atol=1e-6)
        made = actor.predict(pa.table({"prompt": [[9] * 500]}))
        np.testing.assert_allclose(made["vector"].to_pylist(), longest, rtol=1e-5, atol=1e-6)
