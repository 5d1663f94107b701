"""Runs ExecuTorch's stock LLM exporter and keeps each program in the user's cache folder.

An entry of the cache is one folder, ``<cache>/<name>-<key>/``, with ``model.pte``, ``params.json`` and
``export.log``. The key covers everything that decides the program's content, so an entry never goes stale,
and a folder gets its final name only when it is complete.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from executorch_webgpu.models.cache import cache_folder, exclusive

Params = Mapping[str, Any]

# What the exporter's log says when a phase begins. In order of time.
PHASES = (
    (r"Applying quantizers", "reading the weights"),
    (r"Checkpoint dtype", "quantizing"),
    (r"Exporting with:", "tracing the model"),
    (r"Running canonical pass", "lowering to the edge dialect"),
    (r"Operators included|Reusing transition", "building the delegate"),
    (r"Required memory for activation", "writing the program"),
)


class ExportError(Exception):
    """The exporter failed; the message names its log."""


@dataclass(frozen=True)
class ExportOptions:
    """The part of the exporter's command line that decides what the program computes.

    ``group_size`` is the number of weights that share a scale in the 4-bit linear layers (None: float32), and
    ``embedding_group_size`` the same for a 4-bit embedding. The lengths count tokens.
    """

    model_class: str
    group_size: int | None = 32
    embedding_group_size: int | None = None
    max_seq_length: int = 512
    max_context_length: int = 1024

    def arguments(self, checkpoint: Path, params: Path, output: str) -> list[str]:
        """The exporter's arguments; it writes ``output`` (ends in .pte) into its working folder."""
        quantize = [] if self.group_size is None else ["-qmode", "4w", "-G", str(self.group_size)]
        if self.embedding_group_size is not None:
            quantize += ["-E", f"4,{self.embedding_group_size}"]
        return [
            *("--model", self.model_class, "-c", str(checkpoint), "-p", str(params)),
            *("-kv", "--use_sdpa_with_kv_cache", "-V", "-d", "fp32", *quantize),
            *("--max_seq_length", str(self.max_seq_length)),
            *("--max_context_length", str(self.max_context_length)),
            *("--output_name", output),
        ]


def cache_entry(name: str, options: ExportOptions, source: str) -> Path:
    """The folder of this program in the cache, whether it exists or not.

    ``source`` stands for the checkpoint and the parameters: different text wherever those differ.
    """
    deciding = [
        *(f"{package}=={version(package)}" for package in ("torch", "torchao", "executorch")),
        *options.arguments(Path("checkpoint"), Path("params"), "model.pte"),
        source,
    ]
    key = hashlib.sha256("\n".join(deciding).encode()).hexdigest()[:12]
    return cache_folder() / f"{name}-{key}"


def export_program(
    entry: Path,
    options: ExportOptions,
    params: Params,
    write_checkpoint: Callable[[Path], None],
    on_phase: Callable[[str], None],
) -> None:
    """Makes ``entry``, unless it is there. A second process that wants the same entry waits for the first.

    ``write_checkpoint(path)`` saves the float32 weights by their Meta names; that file is deleted afterwards.
    ``on_phase`` is called with a few words whenever the work enters a new phase, and four times a second.
    Raises ExportError, and leaves the log of the failed run in ``<entry>.partial/export.log``.
    """
    with exclusive(entry):
        if entry.exists():
            return
        partial = entry.with_name(entry.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)  # of a run that was interrupted
        partial.mkdir()
        checkpoint = partial / "checkpoint.pth"
        try:
            on_phase("reading the weights")
            write_checkpoint(checkpoint)
            (partial / "params.json").write_text(json.dumps(params, indent=1))
            arguments = options.arguments(checkpoint, partial / "params.json", "model.pte")
            _run_exporter(arguments, partial, on_phase)
        finally:
            checkpoint.unlink(missing_ok=True)
        partial.rename(entry)


def _run_exporter(arguments: list[str], folder: Path, on_phase: Callable[[str], None]) -> None:
    log = folder / "export.log"
    command = [sys.executable, "-m", "executorch.examples.models.llama.export_llama", *arguments]
    with log.open("wb") as output:
        exporter = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        while exporter.poll() is None:
            on_phase(_phase(log.read_text(errors="replace")))
            time.sleep(0.25)
    finally:
        exporter.kill()  # does nothing to a process that has ended
        exporter.wait()
    if exporter.returncode != 0 or not (folder / "model.pte").exists():
        last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["no output"]
        raise ExportError(f"the exporter failed ({last[0]}); its whole output is in {log}")


def _phase(log: str) -> str:
    reached = [phase for pattern, phase in PHASES if re.search(pattern, log)]
    return reached[-1] if reached else "starting the exporter"


def exit_on_terminate() -> None:
    """Makes SIGTERM end this process like Ctrl-C does: children are stopped and temporary files removed."""

    def leave(signum: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + signum)

    signal.signal(signal.SIGTERM, leave)
