"""A text of an engine, with all that says how it goes on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from ..runtime.batch import Draw, Drawn
from .sample import SamplingParams, checked
from .scheduler import Text
from .stream import Mailbox, StreamEnd, TokenLogprobs
from .text_changes import TextChanges

if TYPE_CHECKING:
    from .speculation import Trust


class Request:
    """``most``: tokens that the text may get. ``speculates``: it may be guessed, since only its logits decide on it."""

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
        self._seed = params.some_seed
        self._changes = TextChanges(params, text.tokens, vocab_size)
        self.waits = params.allowed_tokens is not None or params.has_penalties
        self.trust = None if self.waits else trust
        text.waits = self.waits

    def draws(self, start: int, count: int) -> list[Draw]:
        """How the tokens from position ``start`` on are drawn. Raises InvalidInputError for a mask that allows none."""
        params = self.params
        allowed = None if params.allowed_tokens is None else params.allowed_tokens(self.new_tokens)
        changes = self._changes.changes()
        how = (params.temperature, params.top_k, params.top_p, params.min_p, changes, allowed, params.logprobs)
        return [Draw(position, self._seed, *how) for position in range(start, start + count)]

    @property
    def new_tokens(self) -> Sequence[int]:
        return self.text.tokens[self.prompt_length :]

    def take(self, drawn: Sequence[Drawn]) -> tuple[list[int], StreamEnd | None]:
        """Deliver tokens as far as the text goes: those that it got, and why it ended. Raises Error for a broken one."""
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
