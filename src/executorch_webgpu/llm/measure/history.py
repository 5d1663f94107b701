"""Measurements in a CSV file, which grows from run to run."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import InvalidInputError


def append(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows with the same keys, which a new file gets as its first line.

    Raises InvalidInputError when the file has other columns; OSError when it cannot be written.
    """
    columns = list(rows[0])
    fresh = not path.exists()
    if not fresh:
        with path.open(newline="") as file:
            found = next(csv.reader(file), [])
        if found != columns:
            raise InvalidInputError(f"{path} has other columns than {', '.join(columns)}; name another file")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns)
        if fresh:
            writer.writeheader()
        writer.writerows(rows)
