"""A hook of mkdocs: pages of the site that are files of the repository's root, with links that fit there."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for page, source in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=re.sub(r"\]\(([^)#]+)", _moved, text)))
    return files


def _moved(link: re.Match[str]) -> str:
    """A link that is written for the root of the repository, as one between pages of the site."""
    target = link[1].removeprefix("docs/")
    return "](" + {source: page for page, source in PAGES.items()}.get(target, target)
