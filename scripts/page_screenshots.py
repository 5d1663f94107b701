"""Writes docs/images/chat-*.png: the chat page in a Chromium, at a server that runs SmolLM2.

Needs what the page's tests need: scripts/ensure_browser.sh installs it. Run it from the repository's root, as
``python -m scripts.page_screenshots``. On a CPU it takes about a minute. ``--source`` names another model.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import click

from tests.serve.serving import serving

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "tests" / "serve" / "browser" / "screenshots.mjs"
IMAGES = ROOT / "docs" / "images"
LARGEST = 200_000  # bytes; pages with pictures that are larger open slowly


@click.command(help=__doc__)
@click.option("--source", default="smollm2-135m", show_default=True)
def main(source: str) -> None:
    IMAGES.mkdir(exist_ok=True)
    with serving([source]) as running:
        subprocess.run(["node", str(SCRIPT), running.url, str(IMAGES)], check=True)
    for path in sorted(IMAGES.glob("chat-*.png")):
        size = path.stat().st_size
        click.echo(f"{path.relative_to(ROOT)}: {size} bytes")
        if size > LARGEST:
            raise click.ClickException(f"{path.name} is larger than {LARGEST} bytes")


if __name__ == "__main__":
    main()
