"""A slice of the random models; ``python -m tests.differential.models`` runs as many as one likes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.differential.models import compare, main
from tests.differential.models_files import write_model

ON_HOST, ON_DEVICE = range(24), range(100, 104)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The models are too small to share."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", ON_HOST)
def test_models_by_the_references(seed: int, tmp_path: Path) -> None:
    assert compare(seed, tmp_path, on_device=False) in ("right", "refused")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", ON_DEVICE)
def test_models_on_the_device(seed: int, tmp_path: Path) -> None:
    assert compare(seed, tmp_path, on_device=True) in ("right", "refused")


@pytest.mark.filterwarnings("ignore")
def test_the_models_differ(tmp_path: Path) -> None:
    """Both kinds of files, all forms; a seed is a model, byte by byte."""
    kinds: Counter[str] = Counter()
    for seed in range(60):
        folder = tmp_path / str(seed)
        folder.mkdir()
        written = write_model(seed, folder)
        kinds[written.config.model_type] += 1
        for word in ("folder", "gguf", "big-endian", "-of-0000", "native", "prefix none", "refused"):
            kinds[word] += word in written.described or (word == "refused" and written.refused is not None)
    assert len(kinds) == 11 and min(kinds.values()) > 0, kinds
    (tmp_path / "again").mkdir()
    write_model(59, tmp_path / "again")
    for path in (tmp_path / "again").iterdir():
        assert path.read_bytes() == (tmp_path / "59" / path.name).read_bytes()


@pytest.mark.filterwarnings("ignore")
def test_what_is_wrong_is_found(tmp_path: Path) -> None:
    """Negative control: the library's answers to another rope are not those of the model."""
    found = 0
    for seed in range(6):
        folder = tmp_path / str(seed)
        folder.mkdir()
        written = write_model(seed, folder)
        if written.oracle is None:
            continue
        tokens = torch.tensor([[1, 5, 9, 20, 7, 8, 3, 11]])
        with torch.no_grad():
            before = written.oracle(tokens).logits.numpy()
            written.oracle.model.rotary_emb.inv_freq /= 2
            found += bool(np.abs(written.oracle(tokens).logits.numpy() - before).max() > 1e-3)
    assert found >= 4


@pytest.mark.filterwarnings("ignore")
def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--count", "2", "--seed", "7", "--device-every", "0"]) == 0
    assert "'right'" in capsys.readouterr().out
