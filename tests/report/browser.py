"""Opens a page in headless Chromium, and gives the document that its scripts have made."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def opened(page: Path, folder: Path, fragment: str = "") -> str:
    """The document, after scripts have run, which must not have complained of anything.

    ``folder``: for what the browser writes. Without a browser, which ``make test`` installs, the test fails.
    """
    browser = os.environ.get("CHROMIUM") or next((found for name in NAMES if (found := shutil.which(name))), None)
    if browser is None:
        pytest.fail("there is no Chromium; on Debian: apt install chromium")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-extensions", "--no-first-run"]
    options += [
        "--virtual-time-budget=4000",
        "--enable-logging=stderr",
        "--v=0",
        f"--user-data-dir={folder / 'browser'}",
    ]
    command = [browser, *options, "--dump-dom", f"{page.as_uri()}{fragment}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not said, said
    assert "data-drawn" in done.stdout, done.stderr[-2000:]
    return done.stdout


def drawn(document: str) -> int:
    """How many things a page's script says to have drawn."""
    found = re.search(r'data-drawn="(\d+)"', document)
    assert found is not None
    return int(found[1])
