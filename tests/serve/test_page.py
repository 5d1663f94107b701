"""The chat page in a real Chromium, at a running server. The scenarios are the .mjs files of ``browser``.

``scripts/ensure_browser.sh`` installs what they need; ``make test`` calls it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.llm.chat_model import write_chat_model
from tests.serve.serving import serving

SCENARIOS = Path(__file__).with_name("browser")
AT_THE_SERVER = sorted(path.stem for path in SCENARIOS.glob("*.mjs") if "scenario(" in path.read_text(encoding="utf-8"))
PATIENCE = 150  # seconds that a scenario may take on a busy machine; most take three
KEY = "sesame-42"

pytestmark = pytest.mark.slow


def run_node(script: str, *arguments: str) -> None:
    """Runs a script of ``browser``; fails the test with its output where it fails. Leaves no browser behind."""
    ready = shutil.which("node") is not None and (SCENARIOS / "node_modules").is_dir()
    assert ready, "these tests need Node.js, a Chromium and two npm packages: run scripts/ensure_browser.sh"
    process = subprocess.Popen(
        ["node", str(SCENARIOS / f"{script}.mjs"), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=PATIENCE)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert process.returncode == 0, output[-4000:]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A language model that answers in capital letters at temperature 0, and goes on until it is told to stop."""
    folder = tmp_path_factory.mktemp("model")
    return str(write_chat_model(folder, context_len=4096, tokenizer_inside=True).program)


@pytest.fixture(scope="module")
def server(program: str) -> Iterator[str]:
    with serving([program]) as running:
        yield running.url


def test_events_are_read_however_they_are_cut() -> None:
    run_node("sse")


@pytest.mark.parametrize("scenario", [name for name in AT_THE_SERVER if name not in ("key", "screenshots", "harness")])
def test_the_page(server: str, scenario: str) -> None:
    run_node(scenario, server)


def test_the_page_asks_for_a_key_and_keeps_what_a_dying_server_wrote(program: str) -> None:
    with serving([program], {"ET_WEBGPU_API_KEY": KEY}) as running:
        run_node("key", running.url, KEY, str(running.process.pid))
