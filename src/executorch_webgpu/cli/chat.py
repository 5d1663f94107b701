"""``et-webgpu chat SOURCE``."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InvalidInputError
from ..exit_codes import BAD_INPUT
from .options import (
    FILE,
    device_options,
    given_sampling,
    load_options,
    sampling_options,
)
from .source import chosen_options, conversion_options, open_language_model
from .streams import note, standard_input, write

if TYPE_CHECKING:
    from ..llm.conversation import Conversation
    from ..llm.generate import GenerationStats
    from ..runtime import LoadOptions

PROMPT, CONTINUATION = "> ", "... "
COMMANDS = {
    "/help": "these lines",
    "/reset": "forget the conversation",
    "/system TEXT": "begin anew with this system message; without TEXT, show it",
    "/stats": "show token rates after each answer, or no longer",
    "/exit": "leave, as Ctrl-D does",
}
KNOWN = ", ".join(command.split()[0] for command in COMMANDS)
KEYS = (
    "A backslash at the end of a line goes on in the next one; a space before a / makes it a message.\n"
    "Ctrl-C stops an answer; at the prompt it clears the line, and twice it leaves."
)

SAMPLED = {"temperature": 0.7, "top_p": 0.9}  # where the model does not say


@click.command("chat")
@click.argument("source")
@click.option("--tokenizer", "tokenizer_file", type=FILE, help="A .gguf or tokenizer.json  [default: in the program]")
@click.option("--system", metavar="TEXT", help="System message")
@click.option("--stats", is_flag=True, help="Show token rates after each answer")
@sampling_options(max_new_tokens=1024, temperature="0.7 with top-p 0.9")
@conversion_options
@load_options("kv_cache_dtype", "matmul_precision", "fuse")
@device_options
def command(
    source: str,
    tokenizer_file: Path | None,
    system: str | None,
    stats: bool,
    weights: str | None,
    max_context_len: int | None,
    loading: LoadOptions,
    engine: str | None,
    adapter: int | str | None,
    **sampling: Any,
) -> None:
    """Talk with a language model.

    SOURCE is a program (.pte), a GGUF file, a folder with safetensors, smollm2-135m, or org/name of the Hugging Face
    Hub. What is no program is converted once, and kept in the cache folder.
    On a terminal, /help lists what can be typed besides messages. Otherwise each line of standard input is a message.
    Answers go to standard output, all else to standard error. The exit code is 2 when one of those lines was refused.
    """
    from ..llm.conversation import Conversation
    from ..llm.sample import sampling_params

    given = given_sampling(sampling)
    options = chosen_options(weights, max_context_len)
    with open_language_model(
        source, tokenizer_file, options=options, engine=engine, adapter=adapter, loading=loading
    ) as (model, tokenizer):
        params = sampling_params(tokenizer.settings.sampling, given, SAMPLED)
        chat = Chat(Conversation(model, tokenizer, params, system), write, note, stats)
        messages = standard_input()
        if isinstance(messages, io.TextIOWrapper):
            messages.reconfigure(errors="surrogateescape")  # which the tokenizer refuses, one message at a time
        if messages.isatty() and sys.stdout is not None and sys.stdout.isatty():
            with suppress(ImportError):
                import readline  # noqa: F401 (gives input() line editing and a history)
            note(f"Chatting with {source}; /help lists the commands, Ctrl-D leaves.")
            chat.talk(input)
        else:
            chat.work_off(_next_line)
            if chat.failed:
                raise click.exceptions.Exit(BAD_INPUT)


@dataclass
class Chat:
    """Messages and commands in, answers and notes out."""

    conversation: Conversation
    write: Callable[[str], None]  # part of an answer
    note: Callable[[str], None]  # a line about it
    stats: bool = False
    failed: bool = False  # whether a message or a command was refused

    def work_off(self, read_line: Callable[[str], str]) -> None:
        """Take messages until the input's end or /exit. Ctrl-C ends this, like any program."""
        with suppress(EOFError):
            while self.take(read_message(read_line)):
                pass

    def talk(self, read_line: Callable[[str], str]) -> None:
        """The same with a person: Ctrl-C stops an answer or clears the line, and only the second in a row leaves."""
        leaving = False
        while True:
            at_prompt = True
            try:
                message = read_message(read_line)
                at_prompt = leaving = False
                if not self.take(message):
                    return
            except EOFError:
                self.write("\n")
                return
            except KeyboardInterrupt:
                if at_prompt:
                    self.write("\n")
                    if leaving:
                        return
                    self.note("Ctrl-C once more leaves.")
                leaving = at_prompt

    def take(self, text: str) -> bool:
        """Do what a line asks for; False when that is to leave. A bad message is told and does not end the chat."""
        try:
            if not text.startswith("/"):
                if message := text.strip():
                    self._answer(message)
                return True
            return self._obey(*text.split(maxsplit=1))
        except InvalidInputError as error:
            self.failed = True
            self.note("error: " + " ".join(str(error).split()))
            return True

    def _obey(self, name: str, argument: str = "") -> bool:
        match name:
            case "/help":
                for entry, meaning in COMMANDS.items():
                    self.note(f"{entry:14}{meaning}")
                self.note(KEYS)
            case "/reset":
                self.conversation.reset()
                self.note("A new conversation.")
            case "/system" if argument:
                self.conversation.set_system(argument.strip())
                self.note("A new conversation, with this system message.")
            case "/system":
                system = self.conversation.system
                self.note("There is no system message." if system is None else system)
            case "/stats":
                self.stats = not self.stats
                self.note(f"Token rates are {'shown' if self.stats else 'hidden'}.")
            case "/exit":
                return False
            case _:
                self.failed = True
                self.note(f"There is no {name}; the commands are {KNOWN}.")
        return True

    def _answer(self, message: str) -> None:
        pieces = self.conversation.reply(message)
        if dropped := self.conversation.dropped_turns:
            oldest = "the oldest turn is" if dropped == 1 else f"the {dropped} oldest turns are"
            self.note(f"The context is full: {oldest} forgotten.")
        stats = None
        try:
            for piece in pieces:
                self.write(piece.text)
                stats = piece.stats
        finally:
            self.write("\n")
        if stats is not None:
            self._report(stats)

    def _report(self, stats: GenerationStats) -> None:
        if stats.finish_reason == "length":
            self.note("The answer was cut off at --max-new-tokens.")
        elif stats.finish_reason == "context":
            self.note("The answer was cut off: the context is full.")
        if self.stats:
            self.note(describe(stats))


def describe(stats: GenerationStats) -> str:
    """One line: what was computed of the prompt and how fast, and the same of the answer."""
    return (
        f"prefill {stats.prefilled_tokens} tokens ({stats.reused_tokens} reused), {stats.prefill_rate:.1f} tokens/s; "
        f"decode {stats.new_tokens} tokens, {stats.decode_rate:.1f} tokens/s"
        + ("" if stats.host_reason is None else f"; tokens were drawn on the host: {stats.host_reason}")
    )


def read_message(read_line: Callable[[str], str]) -> str:
    """One line without its end, or several that a backslash joins; EOFError when there is none."""
    lines = [read_line(PROMPT)]
    with suppress(EOFError):
        while lines[-1].endswith("\\"):
            lines[-1] = lines[-1].removesuffix("\\")
            lines.append(read_line(CONTINUATION))
    return "\n".join(lines)


def _next_line(prompt: str) -> str:
    line = standard_input().readline()
    if not line:
        raise EOFError
    return line.removesuffix("\n")
