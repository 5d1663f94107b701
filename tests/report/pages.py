"""What must hold of every page, told without a browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import Any

HOSTILE = (
    "</script><script>document.documentElement.dataset.owned=1</script>"
    "<img src=x onerror=\"document.title='owned'\">&amp;{{ 7*7 }}"
)
_VOID = {"meta", "link", "br", "hr", "img", "input", "line"}


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = attributes, text + data
        else:
            self.text += data


def checked_page(text: str) -> tuple[str, Any]:
    """The text and the data of a page that is well-formed, loads nothing, and lets only its own two scripts run."""
    page = _Page()
    page.feed(text)
    page.close()
    assert not page.open, f"{page.open} are not closed"
    assert not [tag for tag, _ in page.tags if tag in ("link", "img", "iframe", "object", "embed", "base", "form")]
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], f"{tag} has a handler in its markup"
        assert "src" not in attributes, f"{tag} loads something"
        assert (attributes.get("href") or "#").startswith("#"), "links stay in the page"
    assert "@import" not in text and not re.search(r"url\(", text)
    data, *scripts = page.scripts
    assert data[0] == {"type": "application/json", "id": "data"} and len(scripts) == 2
    (policy,) = (
        attributes["content"] or ""
        for tag, attributes in page.tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )
    for attributes, script in scripts:
        assert attributes == {}
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy and "unsafe-inline" not in policy.split("script-src")[1].split(";")[0]
    return page.text, json.loads(data[1])
