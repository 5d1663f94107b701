from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

import executorch_webgpu
from executorch_webgpu.cli import Commands
from executorch_webgpu.errors import LimitError
from tests.cli.conftest import Cli

# Importing any of these takes longer than printing a help text may.
HEAVY = ("wgpu", "wgpudawn", "tokenizers", "gguf")


@pytest.mark.parametrize("command", [(), ("devices",), ("inspect",), ("run",), ("generate",), ("chat",), ("bench",)])
def test_help(cli: Cli, command: tuple[str, ...]) -> None:
    result = cli(*command, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: ")


@pytest.mark.parametrize("command", ["generate", "chat"])
def test_help_says_that_defaults_are_the_models(cli: Cli, command: str) -> None:
    text = " ".join(cli(command, "--help").stdout.split())
    for option in ("--temperature", "--top-k", "--top-p", "--min-p", "--repetition-penalty"):
        described = text[text.index(option + " ") :]
        assert described.index("[default: the model's") < described.index("--", 2)
    assert "--stop TEXT" in text


def test_version(cli: Cli) -> None:
    assert cli("--version").stdout == f"et-webgpu, version {executorch_webgpu.__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["generate", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from executorch_webgpu.cli import main\n"
        f"main({arguments!r}, standalone_mode=False)\n"
        f"sys.exit(' '.join(name for name in {HEAVY!r} if name in sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stderr.strip() == ""


@pytest.mark.parametrize("arguments", [("fly",), ("inspect",), ("generate", "x.pte"), ("run", "x", "--engine", "cuda")])
def test_wrong_usage(cli: Cli, arguments: tuple[str, ...]) -> None:
    result = cli(*arguments)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr and result.stdout == ""


def raising(error: BaseException) -> click.Group:
    group = Commands()

    @group.command()
    def fail() -> None:
        raise error

    return group


def test_our_errors_are_one_line() -> None:
    result = CliRunner().invoke(raising(LimitError("tensor 3 needs 5 GiB;\n  the limit is 2 GiB")), ["fail"])
    assert result.exit_code == 2
    assert (result.stdout, result.stderr) == ("", "error: tensor 3 needs 5 GiB; the limit is 2 GiB\n")


def test_files_that_cannot_be_opened_are_named() -> None:
    result = CliRunner().invoke(raising(PermissionError(13, "Permission denied", "model.pte")), ["fail"])
    assert (result.exit_code, result.stderr) == (2, "error: model.pte: Permission denied\n")


def test_interrupt() -> None:
    result = CliRunner().invoke(raising(KeyboardInterrupt()), ["fail"])
    assert result.exit_code == 130
    assert "Traceback" not in result.output


@pytest.mark.slow
def test_an_interrupt_that_python_would_lose_ends_the_command() -> None:
    """In a destructor it is only told about, as an "Exception ignored in"."""
    code = """
import sys, time
import executorch_webgpu.cli
from executorch_webgpu.__main__ import run

class Lost:
    def __del__(self):
        raise KeyboardInterrupt

def main(prog_name):
    Lost()
    time.sleep(60)

executorch_webgpu.cli.main = main
run()
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


def test_names_of_the_package() -> None:
    for name in executorch_webgpu.__all__:
        assert getattr(executorch_webgpu, name).__name__ == name
    assert set(executorch_webgpu.__all__) < set(dir(executorch_webgpu))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = executorch_webgpu.nothing


def test_bugs_keep_their_traceback() -> None:
    result = CliRunner().invoke(raising(ZeroDivisionError()), ["fail"])
    assert isinstance(result.exception, ZeroDivisionError)


def test_reader_that_leaves() -> None:
    """A closed pipe, as "et-webgpu devices | head -1" makes, is no reason to complain."""
    reader = subprocess.Popen(["true"], stdin=subprocess.PIPE)
    assert reader.stdin is not None
    reader.wait()
    command = [sys.executable, "-m", "executorch_webgpu", "--help"]
    result = subprocess.run(command, stdout=reader.stdin, stderr=subprocess.PIPE, text=True)
    assert result.returncode != 0
    assert result.stderr == ""
