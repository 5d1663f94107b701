"""A text of an engine, with all that says how it goes on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..ops.shapes import ceil_div
from ..runtime.batch import Draw, Drawn
from .sample import SamplingParams, checked, draw_of
from .scheduler import Text
from .stream import Mailbox, StreamEnd, TokenLogprobs
from .text_changes import TextChanges

if TYPE_CHECKING:
    from .speculation import Trust


class Request:
    """``trust``: how far it is guessed; None for not at all, and where more than its logits decides on its tokens.

    Raises InvalidInputError as ``TextChanges``.
    """

    def __init__(
        self,
        text: Text,
        params: SamplingParams,
        end_tokens: Collection[int],
        vocab_size: int,
        trust: Trust | None = None,
        mailbox: Mailbox | None = None,
    ) -> None:
        self.text, self.params, self.mailbox = text, params, mailbox or Mailbox()
        self.prompt_length = len(text.tokens)
        self.ends = frozenset(end_tokens)
        self._seed, self._vocab_size = params.some_seed, vocab_size
        self._changes = TextChanges(params, text.tokens, vocab_size)
        text.waits = params.needs_tokens
        text.scored = 0 if params.prompt_logprobs is None else self.prompt_length - 1
        self.trust = None if text.waits else trust

    def draws(self, start: int, count: int) -> list[Draw]:
        """How the tokens from position ``start`` on are drawn. Raises as ``draw_of``."""
        scores = max(0, min(self.prompt_length - start, count))  # tokens of the prompt
        return [*map(self._score_draw, range(start, start + scores)), *self._new_draws(start + scores, count - scores)]

    def _score_draw(self, position: int) -> Draw:
        """What draws the prompt's own token."""
        token = self.text.tokens[position]
        only = np.zeros(ceil_div(self._vocab_size, 32), np.uint32)
        only[token // 32] = 1 << token % 32
        return Draw(position, self._seed, allowed=only, logprobs=self.params.prompt_logprobs)

    def _new_draws(self, start: int, count: int) -> list[Draw]:
        if count == 0:
            return []
        new = () if self.params.allowed_tokens is None else self.new_tokens
        first = draw_of(self.params, start, self._seed, self._changes, new, self._vocab_size)
        return [first, *(replace(first, position=start + i) for i in range(1, count))]

    @property
    def new_tokens(self) -> list[int]:
        """Those that follow the prompt, as far as they are known."""
        return self.text.tokens[self.prompt_length :]

    def score(self, start: int, drawn: Sequence[Drawn]) -> Sequence[Drawn]:
        """Deliver log probabilities of the prompt's tokens among those from position ``start`` on; the others."""
        scores = max(0, min(self.prompt_length - start, len(drawn)))
        for position, each in enumerate(drawn[:scores], start):
            checked(each.token)
            assert each.logprob is not None
            if len(self.mailbox.prompt_logprobs) == position - 1:  # else it is computed a second time
                self.mailbox.prompt_logprobs.append(TokenLogprobs(each.logprob, each.likeliest))
        return drawn[scores:]

    def take(self, drawn: Sequence[Drawn]) -> tuple[list[int], StreamEnd | None]:
        """Deliver tokens as far as the text goes: those, and why it ended. Raises Error for one that is broken."""
        self.mailbox.cached_tokens = self.text.reused
        taken: list[int] = []
        for each in drawn:
            token = checked(each.token)
            if token in self.ends:
                return taken, "eos"
            taken.append(token)
            self._changes.add(token)
            self.mailbox.put(token, None if each.logprob is None else TokenLogprobs(each.logprob, each.likeliest))
            if len(self.text.tokens) + len(taken) == self.text.most:
                full = self.text.most < self.prompt_length + self.params.max_new_tokens
                return taken, "context" if full else "length"
        return taken, None
