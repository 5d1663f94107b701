"""A text of an engine, with all that says how it goes on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..ops.shapes import ceil_div
from ..runtime.batch import Draw, Drawn
from .refusals import Refusals
from .sample import SamplingParams, allowed_mask, checked, draw_of
from .scheduler import Text
from .stream import Mailbox, StreamEnd, TokenLogprobs
from .text_changes import TextChanges

if TYPE_CHECKING:
    from .speculation import Trust


_ROWS_OF_STEP = 2  # draws of one row that take about as long as a step over several rows that must follow


class Request:
    """``trust``: how far it is guessed; None for not at all, and where more than its logits decides on its tokens.
    ``refusals``: how draws without the mask of its grammar fare; None where it cannot be drawn so.

    Raises InvalidInputError as ``TextChanges`` and ``CompiledGrammar.matcher``.
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
        self.needs_tokens = params.needs_tokens
        self.matcher = None if params.grammar is None else params.grammar.matcher(self.ends)
        self._seed, self._vocab_size = params.some_seed, vocab_size
        self._changes = TextChanges(params, text.tokens, vocab_size)
        text.scored = 0 if params.prompt_logprobs is None else self.prompt_length - 1
        self.trust = None if self.needs_tokens else trust
        self.refusals = Refusals() if params.may_refuse else None
        text.redraws = params.may_refuse

    def draws(self, start: int, count: int, mask: NDArray[np.uint32] | None = None) -> list[Draw]:
        """How the tokens from position ``start`` on are drawn. ``mask``: what a grammar allows; none are, if nothing.

        Without a mask, the grammar may refuse what is drawn.
        Raises as ``allowed_mask``, and InvalidInputError where the grammar cannot go on.
        """
        if start < self.prompt_length:
            return [self._score_draw(position) for position in range(start, start + count)]
        if mask is not None and self.matcher is not None:
            self.matcher.settle(mask)
            if self.matcher.done:
                return []
        elif self.params.allowed_tokens is not None:
            mask = allowed_mask(self.params, self.new_tokens, self._vocab_size)
        first = draw_of(self.params, start, self._seed, self._changes, mask)
        return [first, *(replace(first, position=start + i) for i in range(1, count))]

    def _score_draw(self, position: int) -> Draw:
        """What draws the prompt's own token."""
        token = self.text.tokens[position]
        only = np.zeros(ceil_div(self._vocab_size, 32), np.uint32)
        only[token // 32] = 1 << token % 32
        return Draw(position, self._seed, allowed=only, logprobs=self.params.prompt_logprobs)

    @property
    def new_tokens(self) -> list[int]:
        """Those that follow the prompt, as far as they are known."""
        return self.text.tokens[self.prompt_length :]

    def begin(self) -> StreamEnd | None:
        """Deliver what the grammar begins with; why the text ended, if that was all of it. Raises as ``take``."""
        taken, end = self.take_forced()
        self.text.tokens += taken
        return end

    def refuses(self, token: int) -> bool:
        """Whether a token that was drawn without a mask does not count. Raises as ``take``."""
        return self.matcher is not None and not self.matcher.allows(token)

    def take_forced(self) -> tuple[list[int], StreamEnd | None]:
        """Deliver tokens that must follow: these, and why the text ended. Raises as ``take``."""
        taken: list[int] = []
        return taken, self._take_forced(taken)

    def score(self, start: int, drawn: Sequence[Drawn]) -> Sequence[Drawn]:
        """Deliver log probabilities, if these are the prompt's own tokens, from ``start`` on; else they stay."""
        if start >= self.prompt_length:
            return drawn
        for position, each in enumerate(drawn, start):
            checked(each.token)
            assert each.logprob is not None
            if len(self.mailbox.prompt_logprobs) == position - 1:  # else it is computed a second time
                self.mailbox.prompt_logprobs.append(TokenLogprobs(each.logprob, each.likeliest))
        return ()

    def take(self, drawn: Sequence[Drawn], in_flight: int = 0) -> tuple[list[int], StreamEnd | None]:
        """Deliver tokens as far as the text goes, with those that must follow: all these, and why it ended.

        ``in_flight``: draws of what follows. A trained model draws what must follow, so that some of it is there soon:
        to take it at once makes these draws stale, and costs a step over several rows.
        Raises Error for one that is broken, and InvalidInputError where the grammar cannot go on.
        """
        self.mailbox.cached_tokens = self.text.reused
        taken: list[int] = []
        for each in drawn:
            logprobs = None if each.logprob is None else TokenLogprobs(each.logprob, each.likeliest)
            end = self._take(checked(each.token), logprobs, taken) or self._take_forced(taken, in_flight)
            if end is not None:
                return taken, end
        return taken, None

    def _take_forced(self, taken: list[int], in_flight: int = 0) -> StreamEnd | None:
        """Tokens that must follow. They are drawn like others where log probabilities are asked for."""
        if self.matcher is None:
            return None
        scored = self.params.logprobs is not None or self.params.prompt_logprobs is not None
        drawn = scored or (in_flight > 0 and len(self.matcher.forced) <= in_flight + _ROWS_OF_STEP)
        while self.matcher.forced and not drawn:
            if (end := self._take(self.matcher.forced[0], None, taken)) is not None:
                return end
        return "eos" if self.matcher.done else None

    def _take(self, token: int, logprobs: TokenLogprobs | None, taken: list[int]) -> StreamEnd | None:
        if token in self.ends:
            return "eos"
        if self.matcher is not None:
            self.matcher.take(token)
        taken.append(token)
        self._changes.add(token)
        self.mailbox.put(token, logprobs)
        if self.matcher is not None and self.matcher.done:
            return "eos"
        if len(self.text.tokens) + len(taken) == self.text.most:
            return "context" if self.text.most < self.prompt_length + self.params.max_new_tokens else "length"
        return None
