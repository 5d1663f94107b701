"""The chat page as it is served: all of its files, nothing else, and the headers that keep it to this server."""

from __future__ import annotations

import hashlib
import re
from html.parser import HTMLParser

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from executorch_webgpu.serve.page_files import CONTENT_SECURITY_POLICY, FOLDER, TYPES, page_routes

VENDOR = FOLDER / "vendor"
FILES = sorted(path for path in FOLDER.rglob("*") if path.suffix in TYPES)
SCRIPTS = sorted(path for path in FILES if path.suffix in (".js", ".mjs"))


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(Starlette(routes=page_routes()))


def address(name: str) -> str:
    return "/" if name == "index.html" else f"/page/{name}"


@pytest.mark.parametrize("name", [path.relative_to(FOLDER).as_posix() for path in FILES])
def test_each_file_is_served_once_and_then_known(client: TestClient, name: str) -> None:
    answer = client.get(address(name))
    assert answer.status_code == 200
    assert answer.content == (FOLDER / name).read_bytes()
    assert answer.headers["content-type"] == TYPES[(FOLDER / name).suffix]
    assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-cache"

    for known in (answer.headers["etag"], f'"other", W/{answer.headers["etag"]}'):
        again = client.get(address(name), headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
    assert client.get(address(name), headers={"If-None-Match": '"other"'}).status_code == 200
    head = client.head(address(name))
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(answer.content))


@pytest.mark.parametrize(
    "path", ["/page", "/page/", "/page/index.html", "/page/../page_files.py", "/page/%2e%2e/errors.py"]
)
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    assert client.get(path, follow_redirects=False).status_code == 404


def test_the_page_cannot_be_written(client: TestClient) -> None:
    assert {client.request(method, "/").status_code for method in ("POST", "PUT", "DELETE")} == {405}


class Page(HTMLParser):
    """Collects the elements of a page, with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))


def test_the_page_has_the_policy_of_the_header_and_nothing_that_it_forbids() -> None:
    elements = Page((FOLDER / "index.html").read_text(encoding="utf-8")).elements
    (policy,) = (found["content"] for tag, found in elements if tag == "meta" and "http-equiv" in found)
    assert f"{policy}; frame-ancestors 'none'" == CONTENT_SECURITY_POLICY
    assert not {tag for tag, _ in elements} & {"style", "img", "iframe", "object", "embed", "base"}
    names = {name for _, found in elements for name in found}
    assert "style" not in names
    assert not [name for name in names if name.startswith("on")]
    assert all("src" in found for tag, found in elements if tag == "script")
    loaded = [found["src"] or "" for tag, found in elements if tag == "script"]
    loaded += [found["href"] or "" for tag, found in elements if tag == "link" and found["rel"] != "icon"]
    assert loaded
    for address in loaded:
        assert (FOLDER / address.removeprefix("page/")).is_file()  # relative: it may lie below a proxy's prefix
    ids = [found["id"] for _, found in elements if "id" in found]
    assert len(ids) == len(set(ids))


def test_scripts_import_files_of_the_page_only() -> None:
    seen = 0
    for script in SCRIPTS:
        for name in re.findall(
            r"""^(?:import|export)\b[^'"]*?from\s*["']([^"']+)["']""", script.read_text(encoding="utf-8"), re.M
        ):
            assert (script.parent / name).resolve().is_file(), (script.name, name)
            seen += 1
    assert seen > 10


def test_own_files_name_no_other_server() -> None:
    for path in FILES:
        if VENDOR not in path.parents:
            found = set(re.findall(r"(?:https?|wss?)://[^\s'\"]+", path.read_text(encoding="utf-8")))
            assert found <= {"http://www.w3.org/2000/svg"}, path.name


def test_vendored_files_are_whole_and_have_their_licences_beside_them() -> None:
    rows = re.findall(r"^\| `(\w+)` \| \S+ [\d.]+ \| `([^`]+)` \|.*\| `([0-9a-f]{64})` \|$", _versions(), re.M)
    assert {folder for folder, _, _ in rows} == {path.name for path in VENDOR.iterdir() if path.is_dir()}
    for folder, packaged, digest in rows:
        file = VENDOR / folder / packaged.rpartition("/")[2]
        assert hashlib.sha256(file.read_bytes()).hexdigest() == digest, "a vendored file is not the published one"
        others = {path.name for path in file.parent.iterdir()} - {file.name}
        assert "LICENSE" in others
        assert all(name.startswith("LICENSE") for name in others)
        assert all((file.parent / name).stat().st_size > 500 for name in others)


def _versions() -> str:
    return (VENDOR / "VERSIONS.md").read_text(encoding="utf-8")
