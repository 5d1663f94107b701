"""Text against ``transformers``: generated tokenizers, GGUF vocabularies, templates and conversations.

Run: python -m tests.differential.text --count 2000 --seed 1
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.differential.text_checks import check_folder, check_gguf, check_template

CHECKS: dict[str, Callable[[Random, Path], None]] = {
    "tokenizer.json": check_folder,
    "gguf": check_gguf,
    "template": check_template,
}


def run(count: int, seed: int, folder: Path, kinds: tuple[str, ...] = tuple(CHECKS)) -> tuple[Counter[str], list[str]]:
    """How many cases of each kind were clean, and the failures, each with what makes it again."""
    clean: Counter[str] = Counter()
    failures = []
    for number in range(count):
        kind = kinds[number % len(kinds)]
        path = folder / str(number)
        try:
            CHECKS[kind](Random(f"{seed}/{number}"), path)
        except Exception:
            failures.append(f"{kind} --seed {seed}, case {number} in {path}:\n{traceback.format_exc(limit=-2)}")
        else:
            clean[kind] += 1
            shutil.rmtree(path)
    return clean, failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=CHECKS, action="append", help="only this kind; may be given again")
    options = parser.parse_args()
    kinds = tuple(options.kind or CHECKS)
    clean, failures = run(options.count, options.seed, Path(tempfile.mkdtemp(prefix="text-")), kinds)
    for failure in failures[:20]:
        print(failure)
    print(f"{sum(clean.values())} of {options.count} clean:", ", ".join(f"{clean[kind]} {kind}" for kind in kinds))
    raise SystemExit(bool(failures))


if __name__ == "__main__":
    main()
