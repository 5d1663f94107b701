"""A conversation with a model, whose KV cache is kept from message to message."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from ..errors import InvalidInputError
from ..text.chat import encode_chat, user_message
from ..text.tokenizer import Tokenizer
from .exclusive import Exclusive, ExclusiveGenerator
from .generate import Piece, cached_prefix, generate
from .model import LanguageModel
from .sample import SamplingParams

Message = dict[str, str]


class Conversation:
    """Messages in turn, each prompt computed from where it differs from what the model's KV cache holds.

    ``dropped_turns``: how many of the oldest turns (a message and its answer) the last ``reply`` left behind because
    the context was full. Raises InvalidInputError when the tokenizer has no chat template, or one that takes no
    system message while there is one.
    For one thread at a time: while one is in a call, or takes a piece of an answer, another one gets an InUseError.
    """

    def __init__(
        self, model: LanguageModel, tokenizer: Tokenizer, params: SamplingParams, system: str | None = None
    ) -> None:
        self.params = params
        self.dropped_turns = 0
        self._model = model
        self._tokenizer = tokenizer
        self._turns: list[list[Message]] = []  # of a user's and an assistant's message each
        self._answer: ExclusiveGenerator[Piece] | None = None
        self._use = Exclusive(
            "another thread is using this conversation; give each thread one of its own, over a new_sequence() of the "
            "model"
        )
        self.set_system(system)

    @property
    def system(self) -> str | None:
        """The system message."""
        return self._system

    @property
    def messages(self) -> list[Message]:
        """The system message, if there is one, and all turns; an answer counts when it has ended."""
        return self._messages_after(0)

    def reset(self) -> None:
        """Forget all turns."""
        with self._use:
            self._end_answer()
            self._turns = []
            self.dropped_turns = 0

    def set_system(self, system: str | None) -> None:
        """Begin anew with this system message, or none. A template that refuses it leaves everything unchanged."""
        encode_chat(self._tokenizer, user_message("Hello", system))
        with self._use:
            self.reset()
            self._system = system

    def reply(self, text: str) -> Generator[Piece]:
        """The answer to a message, piece by piece; an earlier answer that is still being made ends here.

        If another thread reads that one, it gets a ClosedError.
        An answer that is broken off (by closing the iterator, Ctrl-C or an error) stays in the history as far as its
        pieces were given away; if none was, the message is taken back. When the context is full, the oldest turns are
        dropped. Raises InvalidInputError, with the history unchanged, for a message that does not fit the context
        alone, and when the chat template refuses the messages.
        """
        with self._use, self._model.use:
            self._end_answer()
            prompt, dropped = self._fitting_prompt(text)
            start = cached_prefix(self._model, prompt)
            pieces = generate(self._model, self._tokenizer, prompt, self.params, start=start)
            self.dropped_turns = dropped
            self._answer = ExclusiveGenerator(self._record(text, dropped, pieces), self._use)
            return self._answer

    def _record(self, text: str, dropped: int, pieces: Iterator[Piece]) -> Generator[Piece]:
        answer, finished = "", False
        try:
            for piece in pieces:
                answer += piece.text
                finished = piece.stats is not None
                yield piece
        finally:
            if answer or finished:
                self._turns = [*self._turns[dropped:], [*user_message(text), {"role": "assistant", "content": answer}]]

    def _end_answer(self) -> None:
        if self._answer is not None:
            self._answer.take_over()
            self._answer = None

    def _fitting_prompt(self, text: str) -> tuple[list[int], int]:
        """Tokens of the whole conversation with a new message, and how many turns had to be dropped for it."""
        context_len = self._model.context_len
        room = context_len - min(self.params.max_new_tokens, context_len // 4)  # the rest is for the answer
        prompt = self._prompt(text, dropped=0)
        if len(prompt) <= room:
            return prompt, 0
        # Every drop makes nearly all of the prompt be computed again, so it makes room for more than one turn.
        for dropped in range(1, len(self._turns) + 1):
            prompt = self._prompt(text, dropped)
            if len(prompt) <= context_len // 2:
                return prompt, dropped
        if len(prompt) <= room:
            return prompt, len(self._turns)
        raise InvalidInputError(
            f"the message takes {len(prompt)} tokens with what belongs to it, and the model's context of {context_len} "
            f"leaves {room} beside the answer; shorten it"
        )

    def _prompt(self, text: str, dropped: int) -> list[int]:
        return encode_chat(self._tokenizer, [*self._messages_after(dropped), *user_message(text)])

    def _messages_after(self, dropped: int) -> list[Message]:
        """The system message and all turns but the oldest."""
        first = [] if self._system is None else [{"role": "system", "content": self._system}]
        return [*first, *(message for turn in self._turns[dropped:] for message in turn)]
