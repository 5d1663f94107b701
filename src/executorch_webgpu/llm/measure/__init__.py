"""How fast a language model is: measured, as lines of a table, in a CSV file, and drawn."""

from .speed import Report, Speed, decode_seconds, measure, prefill_seconds
from .streams import StreamReport, StreamSpeed, measure_streams

__all__ = [
    "Report",
    "Speed",
    "StreamReport",
    "StreamSpeed",
    "decode_seconds",
    "measure",
    "measure_streams",
    "prefill_seconds",
]
