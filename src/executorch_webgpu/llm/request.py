"""A text of an engine, with all that says how it goes on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

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
    ) -> None:
        self.text, self.params, self.mailbox = text, params, Mailbox()
        self.prompt_length = len(text.tokens)
        self.ends = frozenset(end_tokens)
        self._seed, self._vocab_size = params.some_seed, vocab_size
        self._changes = TextChanges(params, text.tokens, vocab_size)
        text.waits = params.needs_tokens
        self.trust = None if text.waits else trust

    def draws(self, start: int, count: int) -> list[Draw]:
        """How the tokens from position ``start`` on are drawn. Raises as ``draw_of``."""
        first = draw_of(self.params, start, self._seed, self._changes, self.new_tokens, self._vocab_size)
        return [first, *(replace(first, position=start + i) for i in range(1, count))]

    @property
    def new_tokens(self) -> list[int]:
        """Those that follow the prompt, as far as they are known."""
        return self.text.tokens[self.prompt_length :]

    def take(self, drawn: Sequence[Drawn]) -> tuple[list[int], StreamEnd | None]:
        """Deliver tokens as far as the text goes: those, and why it ended. Raises Error for one that is broken."""
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
