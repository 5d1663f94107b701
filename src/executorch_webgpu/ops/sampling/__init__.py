"""The next token, chosen from logits where they lie; see ``reference`` for what is chosen."""

from . import feed, rows, single

__all__ = ["feed", "rows", "single"]
