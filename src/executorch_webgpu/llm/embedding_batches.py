"""Which texts are computed together, and how long the rows of their batch are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..errors import InvalidInputError
from .encoder_signature import EncoderSignature

# Lengths of rows that are filled up: four between a power of two and the next, and multiples of 8. So there are few of
# them, and the graph keeps its plans for all.
_STEPS, _LEAST_STEP = 4, 8
_FEW_TOKENS = 1024  # a batch of so few is not divided, however much of it only fills up


@dataclass(frozen=True)
class Batch:
    """The places of its texts among all, and the tokens of each of its rows."""

    places: tuple[int, ...]
    length: int


def batches(lengths: Sequence[int], signature: EncoderSignature, *, pads: bool) -> list[Batch]:
    """Batches of texts of ``lengths`` tokens, the longest first, none beyond the signature's bounds.

    ``pads``: shorter texts are filled up. InvalidInputError, which names the text, for a length that a program of
    texts of one length cannot take without.
    """
    if not pads and not signature.any_length:
        wrong = next((i for i, length in enumerate(lengths) if length != signature.max_tokens), None)
        if wrong is not None:
            raise InvalidInputError(
                f"text {wrong} has {lengths[wrong]} tokens, but the program takes exactly {signature.max_tokens} and "
                "no attention mask, so what fills a shorter text up would count: export it with a mask or a dynamic "
                "length, or name the pad_token if it finds that itself"
            )
    return list(_batches(lengths, signature, pads))


def _batches(lengths: Sequence[int], signature: EncoderSignature, pads: bool) -> Iterator[Batch]:
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    start = 0
    while start < len(order):
        longest = _row(lengths[order[start]], signature, pads)
        end, text = start, 0
        while end < len(order) and end - start < signature.max_batch:
            length = lengths[order[end]]
            text += length
            padded = longest * (end + 1 - start)
            wasteful = signature.any_length and padded > max(2 * text, _FEW_TOKENS)
            if end > start and (wasteful or (not pads and length != longest)):
                break
            end += 1
        yield Batch(tuple(order[start:end]), longest)
        start = end


def _row(length: int, signature: EncoderSignature, pads: bool) -> int:
    """Tokens of the rows of a batch whose longest text has ``length``."""
    if not pads:
        return length
    if not signature.any_length:
        return signature.row_tokens
    step = max(_LEAST_STEP, (1 << (length - 1).bit_length()) // (2 * _STEPS))
    return min(signature.max_tokens, length + -length % step)
