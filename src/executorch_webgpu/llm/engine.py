"""Many texts at once over one program that was exported for one."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from ..closing import Closing
from ..errors import InvalidInputError
from ..graph.batching import BatchSizes
from ..graph.kv_pages import PagePool
from ..runtime import LoadOptions, Program
from .draft_program import DraftProgram
from .engine_loop import EngineLoop
from .prompt import checked_prompt, integers
from .request import Request
from .sample import SamplingParams
from .scheduler import Scheduler, Text
from .signature import Signature
from .speculation import MOST_DRAFTS, Drafter, PromptLookup, Trust
from .stream import Mailbox, Stream

MAX_ROWS, MAX_SEQUENCES, PAGE_ROWS = 256, 64, 16
PROMPT_LOOKUP = "prompt-lookup"
_CONTEXTS = 4  # whole contexts that the pool holds by default


class Engine(Closing):
    """Continues many prompts at once, each as it would be alone, over one set of weights.

        with Engine(program, kv_cache_dtype="f16") as engine:
            streams = [engine.submit(tokens, SamplingParams(max_new_tokens=100)) for tokens in prompts]
            for stream in streams:
                print(list(stream))

    Steps mix the next tokens of all running texts with chunks of prompts, ``max_rows`` rows in all. KV caches are
    pages of ``page_rows`` rows in one pool of ``kv_pages`` pages, by default four whole contexts; texts that begin
    alike share pages, and do not compute them twice. When pages run out, the youngest text gives back its own and is
    computed again later.
    ``max_sequences``: texts that run at once, by default 64 if there are as many rows; others wait in the order in
    which they came.
    ``speculate``: how up to seven tokens that come next are guessed, which a step then verifies: "prompt-lookup", as
    they followed the same tokens before, or a smaller program with the same vocabulary. Texts are the same, token for
    token. Guesses stop for a while where they are wrong.
    ``steps_in_flight``: how many steps may be submitted and not read, by default 3, or 2 where a CPU computes. Each
    takes the tokens that the one before draws; there is one, while a text runs whose tokens the host must know.
    ``options``, ``changes``: as ``Program.load_method`` takes them.
    Any thread, and any asyncio task, may call ``submit``. An engine lives as long as somebody holds it or one of its
    streams, unless it is closed before. Raises UnsupportedProgramError for a program that is no language model, that
    takes one token at a time, or whose tokens' rows are not independent of each other, and InvalidInputError for sizes.
    """

    def __init__(
        self,
        program: Program,
        options: LoadOptions | None = None,
        *,
        kv_pages: int | None = None,
        page_rows: int = PAGE_ROWS,
        max_rows: int = MAX_ROWS,
        max_sequences: int | None = None,
        speculate: str | Program | None = None,
        steps_in_flight: int | None = None,
        **changes: Any,
    ) -> None:
        signature = Signature.of(program)
        max_sequences = min(MAX_SEQUENCES, max_rows) if max_sequences is None else max_sequences
        if min(max_rows, max_sequences) < 1 or max_sequences > max_rows:
            raise InvalidInputError(
                f"an engine of {max_sequences} sequences and {max_rows} rows a step cannot be: there must be at least "
                "one of each, and a row for every sequence"
            )
        self.context_len, self.vocab_size = signature.context_len, signature.vocab_size
        self.eos_ids = signature.eos_ids
        if page_rows < 1:
            raise InvalidInputError(f"a page needs at least one row, not {page_rows}")
        if steps_in_flight is not None and steps_in_flight < 1:
            raise InvalidInputError(f"steps_in_flight is {steps_in_flight}; it must be at least 1")
        if isinstance(speculate, str) and speculate != PROMPT_LOOKUP:
            raise InvalidInputError(f'speculate is {speculate!r}; it can be "{PROMPT_LOOKUP}", a program, or None')
        pages = _CONTEXTS * -(-signature.context_len // page_rows) if kv_pages is None else kv_pages
        self._pool = PagePool(pages, page_rows)
        draws = max_sequences if speculate is None else min(max_rows, (1 + MOST_DRAFTS) * max_sequences)
        sizes = BatchSizes(max_rows, draws, max_sequences, signature.context_len, page_rows, pages)
        self._speculates = speculate is not None
        drafter = _drafter(program, speculate, sizes, options, changes)
        try:
            self._batch = program.load_batch("forward", sizes, options, in_flight=steps_in_flight, **changes)
        except BaseException:
            if drafter is not None:
                drafter.close()
            raise
        self._orders = count()
        self._loop = EngineLoop(self._batch, Scheduler(self._pool, max_rows, max_sequences, draws), drafter)
        weakref.finalize(self, self._loop.stop).atexit = False

    def submit(
        self,
        tokens: Sequence[int],
        params: SamplingParams | None = None,
        *,
        end_tokens: Collection[int] | None = None,
        mailbox: Mailbox | None = None,
    ) -> Stream:
        """Continue a prompt. Does not wait; the stream gives the tokens as they are drawn.

        They are those that the same prompt, parameters and seed give alone. ``end_tokens``: by default those that the
        program states. ``mailbox``: where tokens are left, for a reader other than the stream.
        Raises InvalidInputError for a prompt that is empty or longer than the context, for what is no token of the
        vocabulary, and for a text that the pool cannot hold; ClosedError; and what broke the engine.
        """
        params = params or SamplingParams()
        if params.stop:
            raise InvalidInputError("an engine gives tokens, not text, so it cannot look for stop strings")
        prompt = checked_prompt(tokens, self.context_len, self.vocab_size)
        most = len(prompt) + self._check(prompt, params)
        ends = self.eos_ids if end_tokens is None else end_tokens
        trust = Trust() if self._speculates else None
        request = Request(Text(prompt, next(self._orders), most), params, ends, self.vocab_size, trust, mailbox)
        self._loop.submit(request)
        return Stream(request.mailbox, self)

    def held_tokens(self, tokens: Sequence[int]) -> int:
        """How many of a text's first tokens the pool holds rows of, so that they need not be computed: full pages."""
        text = integers(tokens)

        def held() -> int:
            pages = self._pool.begin([*text, 0])  # of which the last one is left out
            length = len(pages.tokens)
            self._pool.end(pages)
            return length

        return int(self._loop.call(held))

    def save(self, tokens: Sequence[int], path: str | Path) -> int:
        """Write what the pool holds of a text to a file. Returns how many of its first tokens that is: full pages.

        The text may be running, or over, as long as nobody needed its pages. The file is one of ``State.save``, with
        the text in it. Waits for steps that are under way. Raises OSError, ClosedError, and what broke the engine.
        """
        text = integers(tokens)
        return int(self._loop.call(lambda: self._batch.rows.save(self._pool, text, path)))

    def load(self, path: str | Path, tokens: Sequence[int] | None = None) -> list[int]:
        """Take what ``save`` or ``State.save`` wrote into idle pages, where texts with the same beginning find it.

        ``tokens``: the text, for a file that does not say it. Returns the tokens that are there now. A text goes on
        from any of them: submit as many as it is to keep, and what comes next.
        Raises InvalidInputError, and changes nothing, for a file that is damaged or of another program or dtype, and
        where the text is not known; ClosedError, and what broke the engine.
        """
        found: list[int] = self._loop.call(lambda: self._batch.rows.load(self._pool, path, tokens))
        return found

    @property
    def text_counts(self) -> tuple[int, int]:
        """How many texts have rows in steps, and how many wait for pages."""
        return self._loop.text_counts

    @property
    def broken(self) -> BaseException | None:
        """What broke the engine, such as a lost device, so that it takes no further texts; None while nothing has."""
        return self._loop.broken

    @property
    def idle_pages(self) -> int:
        """Pages of the pool that no text holds."""
        return self._pool.free

    @property
    def kv_pages(self) -> int:
        """Pages of the pool."""
        return self._pool.pages

    @property
    def page_rows(self) -> int:
        """Rows of a page."""
        return self._pool.page_rows

    @property
    def guessed_tokens(self) -> tuple[int, int]:
        """How many tokens ``speculate`` has guessed so far, and how many of these were right."""
        return self._loop.guessed, self._loop.guessed_right

    @property
    def unmasked_draws(self) -> tuple[int, int]:
        """How many tokens of texts with a grammar were drawn without its mask, and how many of these it refused."""
        return self._loop.unmasked, self._loop.refused

    @property
    def computed_rows(self) -> int:
        """Rows of all steps so far: tokens of prompts and of texts, each once unless its pages were given back."""
        return self._loop.computed_rows

    @property
    def submitted_steps(self) -> int:
        """Steps so far. A text takes fewer than it has tokens where guesses were right, or its grammar forced some;
        more, where its grammar refused some."""
        return self._batch.submitted

    def _check(self, prompt: list[int], params: SamplingParams) -> int:
        """How many tokens a text may get."""
        if params.grammar is not None and params.grammar.vocab_size != self.vocab_size:
            raise InvalidInputError(
                f"the grammar is for a vocabulary of {params.grammar.vocab_size} tokens, but the program's has "
                f"{self.vocab_size}; compile it by a GrammarVocabulary of that size"
            )
        most = min(params.max_new_tokens, self.context_len - len(prompt) + 1)
        rows = len(prompt) + most - 1  # the last token is drawn, and not computed
        if -(-rows // self._pool.page_rows) > self._pool.pages:
            raise InvalidInputError(
                f"the text may take {rows} rows, but the pool of KV cache pages holds "
                f"{self._pool.pages * self._pool.page_rows}: ask for fewer tokens, or give the engine more kv_pages"
            )
        return most

    def close(self) -> None:
        """End all texts, with a ClosedError where they are read, and free the GPU memory. Closing twice is allowed."""
        self._loop.stop()
        if threading.current_thread() is not self._loop.thread:
            self._loop.thread.join()


def _drafter(
    program: Program,
    speculate: str | Program | None,
    sizes: BatchSizes,
    options: LoadOptions | None,
    changes: Mapping[str, Any],
) -> Drafter | None:
    """What guesses for an engine of ``sizes``."""
    if speculate is None or isinstance(speculate, str):
        return None if speculate is None else PromptLookup()
    small, large = Signature.of(speculate), Signature.of(program)
    if small.vocab_size != large.vocab_size:
        raise InvalidInputError(
            f"a program of {small.vocab_size} tokens cannot guess for one of {large.vocab_size}: both need the same "
            "vocabulary"
        )
    pages = sizes.sequences * -(-min(sizes.context_len, small.context_len) // sizes.page_rows)
    of_drafts = replace(sizes, wanted=sizes.sequences, context_len=small.context_len, pages=min(sizes.pages, pages))
    batch = speculate.load_batch("forward", of_drafts, options, in_flight=MOST_DRAFTS, **changes)
    return DraftProgram(batch, PagePool(of_drafts.pages, of_drafts.page_rows))
