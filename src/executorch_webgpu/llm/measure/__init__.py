"""How fast a language model is: measured, as lines of a table, in a CSV file, and drawn."""

from .speed import Report, Speed, decode_seconds, measure, prefill_seconds

__all__ = ["Report", "Speed", "decode_seconds", "measure", "prefill_seconds"]
