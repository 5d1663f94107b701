"""The programs of the zoo that ``make test`` runs: each kind of model, each way of exporting, in little time."""

from __future__ import annotations

CHOSEN: dict[str, tuple[str, ...]] = {}
