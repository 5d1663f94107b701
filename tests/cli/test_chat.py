from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from executorch_webgpu import Runtime
from executorch_webgpu.cli.chat import COMMANDS, Chat, describe, read_message
from executorch_webgpu.llm.conversation import Conversation
from executorch_webgpu.llm.generate import GenerationStats
from executorch_webgpu.llm.model import LanguageModel
from executorch_webgpu.llm.sample import SamplingParams
from executorch_webgpu.text.tokenizer import Tokenizer
from tests.cli.conftest import Cli
from tests.llm.chat_model import ChatModel, write_chat_model

CONTEXT = 1024
ET_WEBGPU = (sys.executable, "-m", "executorch_webgpu")
LETTERS = re.compile(r"[A-Z]+")


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    return write_chat_model(tmp_path_factory.mktemp("chat"), CONTEXT)


@pytest.fixture(scope="module")
def model(chat_model: ChatModel) -> Iterator[LanguageModel]:
    with Runtime.get().load_program(chat_model.program) as program, LanguageModel(program) as model:
        yield model


class Person:
    """Types what it is given, an exception included, and sees everything in order."""

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer, *lines: str | type[BaseException]) -> None:
        self.seen: list[str] = []
        self.answers = ""
        self.lines = iter(lines)
        self.stop_after: int | None = None  # so many characters of an answer, by Ctrl-C
        self.chat = Chat(Conversation(model, tokenizer, SamplingParams(max_new_tokens=5)), self.read, self.note)

    def type(self, prompt: str) -> str:
        line = next(self.lines, EOFError)
        if not isinstance(line, str):
            raise line
        return line

    def read(self, text: str) -> None:
        self.answers += text
        if self.stop_after is not None and len(self.answers) >= self.stop_after:
            self.stop_after = None
            raise KeyboardInterrupt

    def note(self, line: str) -> None:
        self.seen.append(line)


Talk = Callable[..., Person]


@pytest.fixture
def talk(model: LanguageModel, bpe: Tokenizer) -> Talk:
    def run(*lines: str | type[BaseException], stop_after: int | None = None) -> Person:
        person = Person(model, bpe, *lines)
        person.stop_after = stop_after
        person.chat.talk(person.type)
        return person

    return run


def test_messages_and_answers(talk: Talk) -> None:
    person = talk("hello", "", "   ", "go on")
    first, second, end = person.answers.splitlines()
    assert LETTERS.fullmatch(first) and LETTERS.fullmatch(second) and len(first) == len(second) == 5
    assert end == ""  # after Ctrl-D
    assert person.seen == ["The answer was cut off at --max-new-tokens."] * 2
    assert [message["content"] for message in person.chat.conversation.messages] == ["hello", first, "go on", second]


def test_help_lists_every_command(talk: Talk) -> None:
    person = talk("/help")
    assert all(any(line.startswith(command) for line in person.seen) for command in COMMANDS)


def test_unknown_commands(talk: Talk) -> None:
    person = talk("/what is this", "/", " /what is this")
    known = "the commands are /help, /reset, /system, /stats, /exit."
    assert person.seen[:2] == [f"There is no /what; {known}", f"There is no /; {known}"]
    assert person.chat.conversation.messages[0]["content"] == "/what is this"


def test_reset(talk: Talk) -> None:
    person = talk("hello", "/reset", "hello")
    first, second, _ = person.answers.splitlines()
    assert first == second
    assert len(person.chat.conversation.messages) == 2


def test_system_message(talk: Talk) -> None:
    person = talk("hello", "/system", "/system  Be brief. ", "/system")
    assert person.seen[1:] == [
        "There is no system message.",
        "A new conversation, with this system message.",
        "Be brief.",
    ]
    assert person.chat.conversation.messages == [{"role": "system", "content": "Be brief."}]


def test_token_rates(talk: Talk) -> None:
    person = talk("/stats", "hello", "hello", "/stats", "hello")
    rates = [line for line in person.seen if line.startswith("prefill")]
    first, second = (re.match(r"prefill (\d+) tokens \((\d+) reused\), [\d.]+ tokens/s; decode 5", r) for r in rates)
    assert first is not None and second is not None
    assert int(second[2]) == int(first[1]) + int(first[2]) + 4  # of five new tokens the last never ran
    assert "Token rates are shown." in person.seen and "Token rates are hidden." in person.seen


def test_line_of_rates() -> None:
    stats = GenerationStats(30, 2.0, 6, 5, 0.5, "eos", 10)
    assert describe(stats) == "prefill 20 tokens (10 reused), 10.0 tokens/s; decode 6 tokens, 10.0 tokens/s"


def test_exit_leaves_the_rest_unread(talk: Talk) -> None:
    person = talk("/exit", "hello")
    assert (person.answers, list(person.lines)) == ("", ["hello"])


def test_a_message_that_is_too_long(talk: Talk) -> None:
    person = talk("x" * CONTEXT, "hello")
    assert re.fullmatch(r"error: the message takes \d+ tokens .* shorten it", person.seen[0])
    assert LETTERS.fullmatch(person.answers.splitlines()[0])


def test_a_full_context_is_told(talk: Talk) -> None:
    person = talk("x" * 700, "y" * 400)
    assert "The context is full: the oldest turn is forgotten." in person.seen


def test_ctrl_c_at_the_prompt(talk: Talk) -> None:
    person = talk(KeyboardInterrupt, "hello", KeyboardInterrupt, KeyboardInterrupt, "go on")
    assert list(person.lines) == ["go on"]
    assert len(person.chat.conversation.messages) == 2
    assert person.seen.count("Ctrl-C once more leaves.") == 2


def test_ctrl_c_stops_an_answer_and_is_not_the_first_of_two(talk: Talk) -> None:
    person = talk("hello", KeyboardInterrupt, "go on", stop_after=3)
    stopped, _, second, _ = person.answers.splitlines()
    assert (len(stopped), len(second)) == (3, 5)
    assert [message["content"] for message in person.chat.conversation.messages] == ["hello", stopped, "go on", second]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a"], "a"),
        (["a\\", "b \\", "c", "d"], "a\nb \nc"),
        (["\\", "a"], "\na"),
        (["a\\"], "a"),
        (["a\\b"], "a\\b"),
    ],
)
def test_lines_that_go_on(lines: list[str], message: str) -> None:
    rest = iter(lines)
    prompts = []

    def read_line(prompt: str) -> str:
        prompts.append(prompt)
        if (line := next(rest, None)) is None:
            raise EOFError
        return line

    assert read_message(read_line) == message
    assert prompts[0] == "> " and set(prompts[1:]) <= {"... "}


# -- the command, through a pipe --------------------------------------------------------------------------------------


def test_a_pipe(cli: Cli, chat_model: ChatModel) -> None:
    arguments = ("--tokenizer", chat_model.tokenizer, "--system", "Be brief.", "--stats")
    lines = b"hello\n\n/system\nfirst\\\nsecond\n\xff\n/exit\nnever read\n"
    result = cli("chat", chat_model.program, *arguments, "--temperature", 0, "--max-new-tokens", 6, input=lines)
    assert result.exit_code == 2, result.stderr  # of the line that is no text
    first, second = result.stdout.splitlines()
    assert LETTERS.fullmatch(first) and LETTERS.fullmatch(second) and first != second
    notes = result.stderr.splitlines()
    assert [note.split()[0] for note in notes] == ["The", "prefill", "Be", "The", "prefill", "error:"]
    assert "not valid Unicode" in notes[-1]
    assert "(0 reused)" in notes[1] and "(0 reused)" not in notes[4]


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ("hello\n", 0),
        ("", 0),
        ("/stats\n\n/exit\n", 0),
        ("x" * CONTEXT + "\nhello\n", 2),
        ("hello\n" + "x" * CONTEXT + "\n", 2),
        ("/what\n", 2),
        ("\udcff\n/exit\n", 2),
    ],
    ids=["answered", "nothing", "commands", "first", "last", "unknown", "bytes"],
)
def test_the_exit_code_of_a_pipe(cli: Cli, chat_model: ChatModel, lines: str, code: int) -> None:
    arguments = ("--tokenizer", chat_model.tokenizer, "--temperature", 0, "--max-new-tokens", 3)
    result = cli("chat", chat_model.program, *arguments, input=lines.encode(errors="surrogateescape"))
    assert result.exit_code == code, result.stderr
    assert ("error: " in result.stderr or "There is no" in result.stderr) == (code != 0)
    assert len(LETTERS.findall(result.stdout)) == lines.count("hello")


def test_stop_strings_and_penalties(cli: Cli, chat_model: ChatModel) -> None:
    def answer(*options: object) -> str:
        arguments = ("--tokenizer", chat_model.tokenizer, "--temperature", 0, "--max-new-tokens", 20, *options)
        result = cli("chat", chat_model.program, *arguments, input="hello\n")
        assert result.exit_code == 0, result.stderr
        return result.stdout.strip()

    whole = answer()
    assert len(whole) == 20
    cut = whole[7:9]
    assert answer("--stop", "none", "--stop", cut) == whole[: whole.index(cut)]
    once = answer("--repetition-penalty", 1e9, "--max-new-tokens", 10)
    assert len(set(once)) == 10


def test_sampled_unless_told_otherwise(cli: Cli, chat_model: ChatModel) -> None:
    def answer(*options: object) -> str:
        arguments = ("--tokenizer", chat_model.tokenizer, "--max-new-tokens", 40, *options)
        result = cli("chat", chat_model.program, *arguments, input="hello\n")
        assert result.exit_code == 0, result.stderr
        return result.stdout

    assert answer("--seed", 1) == answer("--seed", 1) != answer("--temperature", 0)


@pytest.mark.slow
def test_ctrl_c_ends_what_reads_a_pipe(chat_model: ChatModel) -> None:
    arguments = ("--tokenizer", chat_model.tokenizer, "--temperature", 0, "--max-new-tokens", CONTEXT)
    with subprocess.Popen(
        [*ET_WEBGPU, "chat", *map(str, (chat_model.program, *arguments))], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"hello\n")
        process.stdin.flush()
        assert process.stdout.read(1).isupper()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--temperature", "-1"], "temperature is -1"),
        (["--tokenizer", "missing.gguf"], "missing.gguf: No such file or directory"),
        ([], "no tokenizer inside"),
    ],
    ids=["temperature", "tokenizer", "none"],
)
def test_bad_input(cli: Cli, chat_model: ChatModel, arguments: list[str], message: str) -> None:
    result = cli("chat", chat_model.program, *arguments, input="hello\n")
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr and result.stderr.count("\n") == 1


# -- the command, on a terminal ---------------------------------------------------------------------------------------


class Terminal:
    """A process whose standard streams are a terminal. ``close`` ends it."""

    def __init__(self, *arguments: object) -> None:
        self.master, terminal = pty.openpty()
        self.process = subprocess.Popen(
            [*ET_WEBGPU, *map(str, arguments)],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
            env=os.environ | {"TERM": "dumb"},
        )
        os.close(terminal)
        self.screen = ""

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def shows(self, pattern: str, seconds: float) -> bool:
        """Whether the pattern is on the screen before the time is up."""
        give_up = time.monotonic() + seconds
        while not re.search(pattern, self.screen):
            ready, _, _ = select.select([self.master], [], [], max(0, give_up - time.monotonic()))
            if not ready:
                return False
            self.screen += os.read(self.master, 4096).decode()
        return True

    def wait_for(self, pattern: str) -> str:
        """What is shown until the pattern is; the rest is kept."""
        assert self.shows(pattern, 60), f"no {pattern!r} in {self.screen!r}"
        found = re.search(pattern, self.screen)
        assert found is not None
        shown, self.screen = self.screen[: found.end()], self.screen[found.end() :]
        return shown

    def interrupt(self, pattern: str) -> None:
        """Press Ctrl-C at the prompt. Between a prompt and the wait for a key, Python's readline keeps a signal for the
        next key; whoever sees nothing happen presses again.
        """
        self.process.send_signal(signal.SIGINT)
        if not self.shows(pattern, 10):
            self.process.send_signal(signal.SIGINT)
        self.wait_for(pattern)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)


@pytest.fixture
def terminal(chat_model: ChatModel) -> Iterator[Terminal]:
    options = ("--temperature", 0, "--max-new-tokens", CONTEXT)
    opened = Terminal("chat", chat_model.program, "--tokenizer", chat_model.tokenizer, *options)
    yield opened
    opened.close()


@pytest.mark.slow
def test_ctrl_c_on_a_terminal(terminal: Terminal) -> None:
    terminal.wait_for("/help lists the commands(.|\n)*> ")
    answers = []
    for message in ("hello", "go on"):
        terminal.type(message + "\n")
        terminal.wait_for(message + "\r\n")
        shown = terminal.wait_for("[A-Z]{5}")
        terminal.process.send_signal(signal.SIGINT)
        answers.append(shown + terminal.wait_for("\n> "))
    assert all(re.fullmatch(r"[A-Z]+\r\n> ", answer) for answer in answers)
    assert answers[0] != answers[1]

    terminal.type("half a li")
    terminal.wait_for("half a li")
    terminal.interrupt("once more leaves.\r\n> ")
    terminal.type("/system\n")
    terminal.wait_for("no system message.\r\n> ")
    terminal.type("\x04")
    assert terminal.process.wait(30) == 0


@pytest.mark.slow
def test_ctrl_c_twice_leaves(terminal: Terminal) -> None:
    terminal.wait_for("\n> ")
    terminal.interrupt("once more leaves.\r\n> ")
    terminal.process.send_signal(signal.SIGINT)
    try:
        assert terminal.process.wait(10) == 0
    except subprocess.TimeoutExpired:
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.process.wait(30) == 0
