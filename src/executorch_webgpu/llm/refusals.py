"""When texts with a grammar are drawn without its mask, and how that has fared.

A token is a function of the logits, the text's parameters, its seed and its position; the noise of a token depends on
no other one. So what is drawn without a mask, by the largest score alone, is what is drawn with it, if the mask allows
it. Texts with a grammar are then drawn like free ones, ``in_flight`` steps ahead of what the host has read. It asks the
grammar when it reads a token, which takes microseconds. A token that is refused is drawn again with the mask: the host
knows by then all that comes before, but the text has lost the steps that were in flight.

In steps, with r the share of refused draws and D the steps in flight, a token then takes 1 + D r. The other way is that
each step waits for the tokens before it and for all masks, with one step in flight: the batch runs at ``WAITING_RATE``
of its speed, all texts in it. So one text alone is better off waiting from r = 1 / 9 on, with three steps in flight;
but one of 32 never makes the other 31 wait. That one could also wait by itself, for its mask in every D-th step: D
steps a token, and no better than drawing ahead until two of three draws are refused; where all are, those take D + 1.
Hence there are two ways only, and all texts of a step go the same.
"""

from __future__ import annotations

from collections.abc import Sequence

WAITING_RATE = 0.75  # measured on an H100: 0.69 to 0.82 for one text, 0.40 to 0.85 for 8 and 32
_WINDOW = 5  # times the steps in flight: draws that are averaged, so that two refusals in a row make one text wait
_TRIED, _GOOD = 0.16, 0.05  # what a text is tried again with, when another refusal is too many; and little
_PATIENCE, _MOST_PATIENCE = 32, 512  # tokens


class Refusals:
    """What it costs that a grammar refuses draws of one text: ``lost`` steps for each of its latest draws.

    While the text waits nobody sees what it would draw: after a pause, which doubles up to 512 tokens, it is tried.
    """

    def __init__(self) -> None:
        self.lost = 0.0
        self._patience = _PATIENCE
        self._pause = _PATIENCE  # tokens that are drawn with a mask before the next try

    def drawn(self, refused: bool, in_flight: int) -> None:
        """A token was drawn without the mask, with so many steps in flight."""
        self.lost += (in_flight * refused - self.lost) / (_WINDOW * in_flight)
        if self.lost < _GOOD:
            self._pause = self._patience = _PATIENCE

    def waited(self) -> None:
        """A token was drawn with the mask, by a step that waited for it."""
        self._pause -= 1
        if self._pause <= 0 and self.lost > _TRIED:
            self.lost = _TRIED
            self._patience = min(_MOST_PATIENCE, 2 * self._patience)
            self._pause = self._patience


def pays_to_draw_ahead(texts: Sequence[Refusals], others: int) -> bool:
    """Whether a step of ``texts`` with grammars, and of ``others`` without, gives more tokens if it does not wait."""
    ahead = others + sum(1 / (1 + text.lost) for text in texts)
    return ahead >= WAITING_RATE * (others + len(texts))
