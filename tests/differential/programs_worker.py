"""A process that examines models, so that a crash or a hang ends it and not the run."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from typing import Any

from .programs_export import Flavour
from .programs_model import Model

SECONDS = 120.0  # without a sign of life


def serve(connection: Connection, engine: str | None) -> None:
    """Answer requests until the other end closes: stages as they begin, then the verdict."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["ET_WEBGPU_ENGINE"] = engine or os.environ.get("ET_WEBGPU_ENGINE", "wgpu")
    # The exporter and the stock runtime say much that is of no use here, from C++ as well.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    import torch

    from .programs_oracle import examine

    torch.set_num_threads(1)
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    with contextlib.suppress(EOFError):
        while True:
            arguments = connection.recv()
            connection.send(("verdict", examine(*arguments, stage=lambda name: connection.send(("stage", name)))))


class Worker:
    """The process, started again after it died. A context manager."""

    def __init__(self, engine: str | None) -> None:
        self._engine = engine
        self._process: Any = None
        self._connection: Any = None

    def examine(self, model: Model, flavour: Flavour) -> tuple[Any, str | None]:
        """The verdict, or, where the process died or hung, none and the stage at which it did."""
        if self._process is None:
            self._start()
        self._connection.send((model, flavour))
        stage = "start"
        while True:
            try:
                if not self._connection.poll(SECONDS):
                    self.stop()
                    return None, f"hangs: {stage}"
                kind, value = self._connection.recv()
            except (EOFError, ConnectionError):
                self.stop()
                return None, f"crashes: {stage}"
            if kind == "verdict":
                return value, None
            stage = value

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
            self._process = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, self._engine), daemon=True)
        self._process.start()
        theirs.close()
