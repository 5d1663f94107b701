"""``python -m tests.differential.replay DIR [--engine wgpu|dawn]``: run saved programs, without torch.

Prints how many are right, refused and wrong; each wrong one, and each that was right where it was saved and is refused
here. Exits with 1 if there is any of those.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from .programs_compare import normalized
from .programs_saved import read_saved, replay


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--engine", choices=("auto", "wgpu", "dawn"))
    parser.add_argument("--source", action="store_true", help="print the model of each program that is wrong")
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    refusals: Counter[str] = Counter()
    failures = 0
    paths = sorted(options.folder.glob("*.pte"))
    if not paths:
        print(f"{options.folder} has no .pte file")
        return 1
    for path in paths:
        saved = read_saved(path)
        outcome, message = replay(saved, options.engine)
        counts[outcome] += 1
        if outcome == "refused":
            refusals[normalized(message)] += 1
        if outcome == "wrong" or (outcome == "refused" and saved.outcome == "right"):
            failures += 1
            print(f"{path.name}: {outcome}: {message}", flush=True)
            if options.source:
                print(saved.source)
    print(", ".join(f"{counts[kind]} {kind}" for kind in ("right", "refused", "wrong")), f"of {len(paths)} programs")
    for message, count in refusals.most_common():
        print(f"{count:6} {message}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
