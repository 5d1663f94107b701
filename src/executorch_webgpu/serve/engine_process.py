"""The process that has the GPU: it loads the programs, and answers what the HTTP process asks.

It is a process of its own because Python runs one thread at a time: what encodes steps would wait for what writes HTTP.
Run as ``python -m executorch_webgpu.serve.engine_process SOCKET`` by ``link.start_linked``.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from typing import Any

from ..errors import DeviceError, Error, InvalidInputError
from ..llm.embedder import Embedder
from ..llm.engine import PROMPT_LOOKUP, Engine
from ..llm.grammar import GrammarVocabulary
from ..llm.program_tokenizer import tokenizer_of
from ..llm.sample import SamplingParams
from ..llm.stream import Mailbox, Stream, StreamEnd, TokenLogprobs
from ..runtime import Program, Runtime
from .link import Link, frame, inherited, receive_one
from .settings import EngineSettings
from .wire import (
    Accepted,
    AskLoad,
    Came,
    Cancel,
    Embed,
    Embedded,
    EncoderFacts,
    LanguageFacts,
    Load,
    Ready,
    Refused,
    Submit,
)

BROKEN = 3  # the exit code after which a new process may do better


class _Outgoing(Mailbox):
    """Sends the tokens of a text on, as they come."""

    def __init__(
        self, id: int, send: Callable[[Any], None], ended: Callable[[int], None], fail: Callable[[int, Any], None]
    ) -> None:
        super().__init__()
        self._id, self._send, self._on_end, self._fail = id, send, ended, fail
        self._cached: int | None = None  # what was sent of these
        self._scored = 0
        self._ending = threading.Lock()

    def put(self, token: int, logprobs: TokenLogprobs | None = None) -> None:
        if self.ended:
            return
        if logprobs is None and self._cached == self.cached_tokens and not self.prompt_logprobs:
            self._send((self._id, token))
        else:
            self._send(self._with_prompt(Came(self._id, [token], None if logprobs is None else [logprobs])))

    def _with_prompt(self, came: Came) -> Came:
        """With what has become known of the prompt."""
        if self._cached != self.cached_tokens:
            came.cached_tokens = self._cached = self.cached_tokens
        if self._scored < len(self.prompt_logprobs):
            came.prompt_logprobs = self.prompt_logprobs[self._scored :]
            self._scored = len(self.prompt_logprobs)
        return came

    def finish(self, end: StreamEnd | None, error: BaseException | None = None) -> None:
        with self._ending:
            if self.ended:
                return
            self.end, self.error = end, error
        if error is None:
            self._send(self._with_prompt(Came(self._id, [], end=end)))
        else:
            self._fail(self._id, error)
        self._on_end(self._id)


def _refused(id: int, error: BaseException, at_fault: bool = True) -> Refused:
    """``at_fault``: whether the request is, if its values are what was refused."""
    sentence = str(error) if isinstance(error, Error | OSError) else f"{type(error).__name__}: {error}"
    return Refused(id, sentence, at_fault and isinstance(error, InvalidInputError))


class EngineProcess:
    """The loaded programs, and the texts that are running."""

    def __init__(self, settings: EngineSettings) -> None:
        self._runtime = Runtime.get(engine=settings.engine, adapter=settings.adapter)
        self._programs: list[Program] = []
        self._tokenizer = settings.tokenizer
        self._streams: dict[int, Stream | None] = {}  # None: on its way into the engine, or of an encoder
        self._lock = threading.Lock()  # of the streams
        self._engine: Engine | None = None
        self._embedder: Embedder | None = None
        self._link: Link | None = None
        self._gone = threading.Event()
        self._workers = ThreadPoolExecutor(2, "request")
        self._encoding = ThreadPoolExecutor(1, "embeddings")
        if settings.program is not None:
            self._language = self._load(settings.program)
            given = settings.speculate
            speculate = given if given is None or given == PROMPT_LOOKUP else self._load(given)
            self._engine = Engine(self._language, settings.loading, speculate=speculate, **settings.sizes)
        if settings.embeddings is not None:
            loading = replace(settings.loading, kv_cache_dtype="f32")  # an encoder has no cache
            self._embedder = Embedder(self._load(settings.embeddings), None, loading)

    def _load(self, path: str) -> Program:
        program = self._runtime.load_program(path)
        self._programs.append(program)
        return program

    @cached_property
    def _vocabulary(self) -> GrammarVocabulary:
        assert self._engine is not None
        return GrammarVocabulary(tokenizer_of(self._language, self._tokenizer), self._engine.vocab_size)

    def ready(self) -> Ready:
        """What was loaded."""
        engine, embedder = self._engine, self._embedder
        language = encoder = None
        if engine is not None:
            rows = engine.kv_pages * engine.page_rows
            language = LanguageFacts(engine.context_len, engine.vocab_size, rows, engine.eos_ids)
        if embedder is not None:
            encoder = EncoderFacts(embedder.dim, embedder.max_tokens)
        return Ready(self._runtime.device.info.name, language, encoder)

    def serve(self, connected: socket.socket) -> None:
        """Answer until the other process is gone."""
        self._link = link = Link(connected, self._receive, self._gone.set)
        link.send(self.ready())
        self._gone.wait()

    def _receive(self, messages: list[Any]) -> None:
        for message in messages:
            match message:
                case Submit():
                    self._streams[message.id] = None
                    if message.grammar is None:
                        self._submit(message, message.params)
                    else:  # may take long
                        self._workers.submit(self._submit_constrained, message)
                case Cancel():
                    with self._lock:
                        stream = self._streams.pop(message.id, None)
                    if stream is not None:
                        stream.cancel()
                case Embed():
                    self._streams[message.id] = None
                    self._encoding.submit(self._embed, message)
                case AskLoad():
                    self._workers.submit(self._load_of, message)

    def _submit_constrained(self, message: Submit) -> None:
        assert message.grammar is not None
        if message.id not in self._streams:
            return  # cancelled while it waited for a worker
        try:
            params = replace(message.params, grammar=self._vocabulary.compile(message.grammar))
        except Exception as error:
            self._refuse(message.id, error)
        else:
            self._submit(message, params)

    def _submit(self, message: Submit, params: SamplingParams) -> None:
        assert self._link is not None
        mailbox = _Outgoing(message.id, self._link.send, self._ended, self._fail)
        try:
            if self._engine is None:
                raise InvalidInputError("this server has no language model, only embeddings")
            if message.id not in self._streams:
                return  # cancelled meanwhile
            stream = self._engine.submit(message.tokens, params, end_tokens=message.ends, mailbox=mailbox)
        except Exception as error:
            self._refuse(message.id, error)
            return
        self._link.send(Accepted(message.id))  # not before: what cannot be is refused, and no stream begins
        with self._lock:
            wanted = message.id in self._streams
            if wanted and not mailbox.ended:
                self._streams[message.id] = stream
        if not wanted:
            stream.cancel()  # without the lock, which the end of a text takes; one that has ended stays as it is

    def _refuse(self, id: int, error: Exception) -> None:
        self._streams.pop(id, None)
        self._fail(id, error)

    def _fail(self, id: int, error: BaseException) -> None:
        """Say what a text cannot be done for. Where that is the engine, a new process takes this one's place."""
        assert self._link is not None
        broken = self._engine is not None and self._engine.broken is not None
        self._link.send(_refused(id, error, not broken))
        if broken or isinstance(error, DeviceError):  # which a new process may get back
            self._gone.set()

    def _ended(self, id: int) -> None:
        with self._lock:
            self._streams.pop(id, None)

    def _embed(self, message: Embed) -> None:
        assert self._link is not None
        if message.id not in self._streams:
            return  # cancelled while others were computed
        try:
            if self._embedder is None:
                raise InvalidInputError("this server has no encoder; start it with --embeddings SOURCE")
            embeddings = self._embedder.embed(message.texts, truncate=message.truncate)
        except Exception as error:
            self._refuse(message.id, error)
        else:
            self._ended(message.id)
            self._link.send(Embedded(message.id, embeddings.astype("<f4").tobytes()))

    def _load_of(self, message: AskLoad) -> None:
        assert self._link is not None
        engine = self._engine
        if engine is None:
            self._link.send(Load(message.id, 0, 0, 0, 0))
        else:
            self._link.send(Load(message.id, *engine.text_counts, engine.idle_pages, engine.kv_pages))

    def close(self) -> None:
        """Free everything."""
        self._workers.shutdown(wait=False, cancel_futures=True)
        self._encoding.shutdown(wait=True, cancel_futures=True)
        for owned in (self._engine, self._embedder, *self._programs):
            if owned is not None:
                owned.close()


def main() -> None:
    """Connect, load, and serve."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the HTTP process, which ends this one
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    connected = inherited(sys.argv[1])
    settings = receive_one(connected)
    try:
        process = EngineProcess(settings)
    except Exception as error:
        connected.sendall(frame([_refused(0, error)]))
        sys.exit(1)
    process.serve(connected)
    # Whoever would wait for a device that hangs waits for nothing: the HTTP process has gone on without this one.
    threading.Timer(5, os._exit, (BROKEN,)).start()
    process.close()
    os._exit(0)


if __name__ == "__main__":
    main()
