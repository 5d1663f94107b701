"""Ctrl-C while a command starts, and a reader who leaves: no traceback. In processes of their own."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.llm.chat_model import ChatModel, write_chat_model

# Python's own start cannot be guarded; what comes after this line can.
STARTED = "from executorch_webgpu.__main__ import run; print('started', flush=True); run()"


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    return write_chat_model(tmp_path_factory.mktemp("interrupt"), 1024)


@pytest.mark.parametrize("seconds", [0.01, 0.1, 0.3, 0.7, 1.5, 4.0])
def test_ctrl_c_while_starting(chat_model: ChatModel, seconds: float) -> None:
    """While importing, opening the device, loading or waiting for a message, which never comes."""
    arguments = ("chat", chat_model.program, "--tokenizer", chat_model.tokenizer)
    with subprocess.Popen(
        [sys.executable, "-c", STARTED, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == b"started\n"
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        code = process.wait(60)
        assert (code, process.stdout.read(), process.stderr.read()) == (130, b"", b"")


def test_ctrl_c_while_converting(chat_model: ChatModel, tmp_path: Path) -> None:
    """Of a process that cannot end before: its output is a pipe that is not read until the signal is sent."""
    source = chat_model.program.with_suffix(".gguf")
    code = (
        "import signal, executorch_webgpu.models.convert as convert\n"
        "from executorch_webgpu.__main__ import run\n"
        "write = convert.convert\n"
        "def convert_interrupted(*arguments, on_progress, **options):\n"
        "    write(*arguments, on_progress=lambda *_: signal.raise_signal(signal.SIGINT), **options)\n"
        "convert.convert = convert_interrupted\n"
        "run()"
    )
    output = tmp_path / "model.pte"
    result = subprocess.run(
        [sys.executable, "-c", code, "convert", str(source), "-o", str(output)], capture_output=True, text=True
    )
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("command", ["generate", "chat", "inspect"])
def test_a_reader_who_leaves(chat_model: ChatModel, command: str) -> None:
    model = (str(chat_model.program), "--tokenizer", str(chat_model.tokenizer), "--max-new-tokens", "1000")
    arguments = {"generate": (*model, "hello"), "chat": model, "inspect": model[:1]}[command]
    with subprocess.Popen(
        [sys.executable, "-m", "executorch_webgpu", command, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        if command == "inspect":
            process.stdout.close()
        process.stdin.write(b"hello\n" * 3)
        process.stdin.close()
        if command != "inspect":
            assert len(process.stdout.read(1)) == 1
            process.stdout.close()
        assert process.wait(60) == 1
        assert process.stderr.read() == b""
